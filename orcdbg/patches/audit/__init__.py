"""Is every byte of text in memory accounted for: the kernel's, a module's, and code that no file holds?"""
