"""How are the kernel's containers walked: lists, red-black trees, xarrays, maple trees?"""
