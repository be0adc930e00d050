"""From registers to a frame to the caller's registers, with the provenance of each step."""
