"""Ratios against peers, measured in one run on the lab's snapshots (make bench)."""
