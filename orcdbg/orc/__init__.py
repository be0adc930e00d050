"""ORC rows: decoding by layout, lookup, and the overlay for patched text."""
