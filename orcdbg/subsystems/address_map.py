"""Which part of the kernel's address space is an address in, and how do direct map, pages and `struct page` lead to each other?

Mirrors Documentation/arch/x86/x86_64/mm.rst, arch/x86/include/asm/page_64_types.h and pgtable_64_types.h. Pages are described
by one array, vmemmap (CONFIG_SPARSEMEM_VMEMMAP, which every distribution's x86-64 kernel has).
"""

from __future__ import annotations

import enum
import functools

from orcdbg.base.errors import MemoryFault, NotFound, UnsupportedFormat
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import PAGE, U64
from orcdbg.kernel.linux import Linux

_TERABYTE = 1 << 40
_GIGABYTE = 1 << 30
# Where the areas begin with 4 and with 5 levels of page tables, unless CONFIG_RANDOMIZE_MEMORY has moved them.
_DIRECT_MAP = {4: 0xFFFF_8880_0000_0000, 5: 0xFF11_0000_0000_0000}
_VMALLOC = {4: 0xFFFF_C900_0000_0000, 5: 0xFFA0_0000_0000_0000}
_VMEMMAP = {4: 0xFFFF_EA00_0000_0000, 5: 0xFFD4_0000_0000_0000}
_DIRECT_MAP_SIZE = {4: 64 * _TERABYTE, 5: 32 << 50}
_VMALLOC_SIZE = {4: 32 * _TERABYTE, 5: 12800 * _TERABYTE}
# PGD entry -4, 512 GiB of it: cpu_entry_area, then (since 4.15) nothing else.
_CPU_ENTRY_AREA = 0xFFFF_FE00_0000_0000
_ESPFIX = 0xFFFF_FF00_0000_0000
_PGD_SIZE = 1 << 39
_EFI_END = 0xFFFF_FFFF_0000_0000
_EFI_START = _EFI_END - 64 * _GIGABYTE
_IMAGE = 0xFFFF_FFFF_8000_0000
_MODULES_END = 0xFFFF_FFFF_FF00_0000
_FIXMAP_END = 0xFFFF_FFFF_FF80_0000
# As many bytes of memory as 52 bits of physical address have pages, so that a false number of pages is no loop.
MAX_PHYSICAL = 1 << 52


class Region(enum.Enum):
    """An area of the address space; the values are the JSON contract's words."""

    USER = "user"
    DIRECT_MAP = "direct map"
    VMALLOC = "vmalloc"
    VMEMMAP = "vmemmap"
    CPU_ENTRY_AREA = "cpu entry area"
    ESPFIX = "espfix"
    EFI = "efi"
    IMAGE = "image"
    MODULES = "modules"
    FIXMAP = "fixmap"
    HOLE = "hole"


class AddressMap:
    """The kernel's address space.

    Args:
        linux: the kernel.
        levels: of its page tables, 4 or 5.
    """

    def __init__(self, linux: Linux, levels: int) -> None:
        self._linux = linux
        self._levels = levels

    def _base(self, variable: str, otherwise: int) -> int:
        """A base that CONFIG_DYNAMIC_MEMORY_LAYOUT keeps in a variable (0483e1fa6e09, 4.8)."""
        address = self._linux.find_address(variable)
        if address is None:
            return otherwise
        try:
            return read_u64(self._linux.memory, address)
        except MemoryFault:
            return otherwise

    @functools.cached_property
    def direct_map(self) -> int:
        """PAGE_OFFSET: where physical address 0 is mapped."""
        return self._base("page_offset_base", _DIRECT_MAP[self._levels])

    @functools.cached_property
    def vmalloc(self) -> int:
        """VMALLOC_START."""
        return self._base("vmalloc_base", _VMALLOC[self._levels])

    @functools.cached_property
    def vmemmap(self) -> int:
        """Where `struct page` of frame 0 is."""
        return self._base("vmemmap_base", _VMEMMAP[self._levels])

    @functools.cached_property
    def page_struct_size(self) -> int:
        """Bytes of a `struct page`.

        Raises:
            NotFound: the kernel's types have none.
            UnsupportedFormat: it is as large as no kernel's.
        """
        size = self._linux.types.size("page")
        if not 32 <= size <= 256:
            raise UnsupportedFormat("struct page", f"{size} bytes")
        return size

    @functools.cached_property
    def memory_end(self) -> int:
        """The first physical address behind all memory that the kernel knows, max_pfn."""
        address = self._linux.find_address("max_pfn")
        if address is None:
            return MAX_PHYSICAL
        return min(read_u64(self._linux.memory, address) * PAGE, MAX_PHYSICAL)

    def region(self, address: int) -> Region:
        """The area that an address is in."""
        if not address >> 63:
            return Region.USER if address < 1 << (9 * self._levels + 11) else Region.HOLE
        image_start, image_end = (self._linux.find_address(name) or 0 for name in ("_text", "_end"))
        if image_start <= address < image_end:
            return Region.IMAGE
        return next((region for region, start, end in self._areas if start <= address < end), Region.HOLE)

    @functools.cached_property
    def _areas(self) -> list[tuple[Region, int, int]]:
        """The areas. Those that the boot moves lie in this order, each behind all that the one before could have."""
        return [
            (Region.VMEMMAP, self.vmemmap, self.vmemmap + self._vmemmap_size),
            (Region.VMALLOC, self.vmalloc, min(self.vmalloc + _VMALLOC_SIZE[self._levels], self.vmemmap)),
            (Region.DIRECT_MAP, self.direct_map, min(self.direct_map + _DIRECT_MAP_SIZE[self._levels], self.vmalloc)),
            (Region.CPU_ENTRY_AREA, _CPU_ENTRY_AREA, _CPU_ENTRY_AREA + _PGD_SIZE),
            (Region.ESPFIX, _ESPFIX, _ESPFIX + _PGD_SIZE),
            (Region.EFI, _EFI_START, _EFI_END),
            (Region.IMAGE, _IMAGE, self._modules_start),
            (Region.MODULES, self._modules_start, _MODULES_END),
            (Region.FIXMAP, _MODULES_END, _FIXMAP_END),
        ]

    @functools.cached_property
    def _vmemmap_size(self) -> int:
        try:
            return -(-self.memory_end // PAGE) * self.page_struct_size
        except NotFound:
            return _TERABYTE

    @functools.cached_property
    def _modules_start(self) -> int:
        """MODULES_VADDR: behind 512 MiB of image, 1 GiB where it may be moved (CONFIG_RANDOMIZE_BASE)."""
        is_movable = self._linux.find_address("kaslr_offset") is not None or self._linux.slide
        return _IMAGE + (_GIGABYTE if is_movable or self._linux.find_address("module_load_offset") else _GIGABYTE // 2)

    # From one to another

    def in_direct_map(self, address: int) -> bool:
        """Whether an address is that of memory in the direct map."""
        return self.direct_map <= address < self.direct_map + self.memory_end

    def physical_of(self, address: int) -> int:
        """The physical address of one in the direct map."""
        return address - self.direct_map

    def virtual_of(self, physical: int) -> int:
        """The direct map's address of a physical one."""
        return self.direct_map + physical & U64

    def page_at(self, pfn: int) -> int:
        """Address of the `struct page` of a page frame."""
        return self.vmemmap + pfn * self.page_struct_size & U64

    def pfn_of(self, page: int) -> int | None:
        """The page frame whose `struct page` holds an address; None where the array has none there."""
        pfn = (page - self.vmemmap) // self.page_struct_size
        return pfn if 0 <= pfn * PAGE < self.memory_end else None
