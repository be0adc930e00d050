"""The kernel as built: what its files hold, at the addresses they were linked for."""
