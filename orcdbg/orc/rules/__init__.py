"""Where a CFA rule can come from: one file a source. `overlay.py` puts them in order."""
