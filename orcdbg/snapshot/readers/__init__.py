"""One file a snapshot format, and the choice among them."""
