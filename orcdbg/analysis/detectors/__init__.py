"""One file a kind of death; `registry.py` has all of them, in the order in which they are asked."""
