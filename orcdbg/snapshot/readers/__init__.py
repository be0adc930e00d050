"""One file a snapshot format, behind one shape (`reader.py`), in one order (`registry.py`)."""
