"""What do the bits of a page table entry mean, and which of CR3's are an address?

The names are those of arch/x86/include/asm/pgtable_types.h without `_PAGE_`, and of processor-flags.h and pti.h for CR3
and CR4. Addresses of tables and pages are physical.
"""

from __future__ import annotations

PRESENT = 1 << 0
RW = 1 << 1
USER = 1 << 2
PWT = 1 << 3
PCD = 1 << 4
ACCESSED = 1 << 5
DIRTY = 1 << 6
GLOBAL = 1 << 8
NX = 1 << 63

PSE = 1 << 7
"""The entry is a page, of 2 MiB or 1 GiB. In the last level, where every entry is a page, the same bit is PAT."""

PHYSICAL = 0x000F_FFFF_FFFF_F000
"""Where an entry, and CR3, have an address: bits 12 to 51 (__PHYSICAL_MASK with 52 bits), an encryption bit among them."""

CR3_USER_HALF = 1 << 12
"""PTI_USER_PGTABLE_BIT (since 4.15): under page table isolation CR3 has the second of two pages, which user mode runs on.

Without isolation it is a bit of the address like any other.
"""

CR4_LA57 = 1 << 12
"""Five levels of tables in place of four."""
