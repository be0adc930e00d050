"""How large is what every layer counts in?"""

from __future__ import annotations

# Bytes of a page frame: PAGE_SIZE of arch/x86/include/asm/page_types.h, the same on every x86-64 kernel.
PAGE = 4096

# The largest address and word, and the mask that takes a sum of them back to 64 bits.
U64 = (1 << 64) - 1
