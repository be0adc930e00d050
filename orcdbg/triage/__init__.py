"""Many dumps: what became of each, which died of the same, and who works on them."""
