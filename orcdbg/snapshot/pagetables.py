"""At which physical address is a kernel virtual address, by the kernel's own page tables?"""

from __future__ import annotations

from orcdbg.base.errors import BadAddress, NotInSnapshot
from orcdbg.base.reading import AddressSpace

PAGE = 4096
_PRESENT, _LARGE = 1, 1 << 7
_PHYSICAL = 0x000F_FFFF_FFFF_F000
MAX_CACHED_TABLES = 4096
MAX_CACHED_PAGES = 1 << 18


class KernelMemory:
    """Kernel virtual memory of a snapshot: an AddressSpace.

    Args:
        physical: the machine's physical memory.
        root: physical address of the top page table.
        levels: 4 or 5.
        sme_mask: the memory-encryption bit of page table entries, 0 without.
    """

    def __init__(self, physical: AddressSpace, root: int, levels: int, sme_mask: int = 0) -> None:
        self._physical = physical
        self.root = root
        self.levels = levels
        self._mask = _PHYSICAL & ~sme_mask
        self._tables: dict[int, memoryview] = {}
        self._pages: dict[int, int] = {}

    def forget(self) -> None:
        """Drops what was cached of page tables: for memory that changes, as a live guest's does between stops."""
        self._tables.clear()
        self._pages.clear()

    def _table(self, address: int) -> memoryview:
        table = self._tables.get(address)
        if table is None:
            if len(self._tables) >= MAX_CACHED_TABLES:
                self._tables.clear()
            table = self._tables[address] = memoryview(self._physical.read(address, PAGE)).cast("Q")
        return table

    def translate(self, address: int) -> int:
        """The physical address behind a virtual one.

        Raises:
            BadAddress: not canonical, or no page is mapped there.
            NotInSnapshot: a page table on the way is not in the snapshot.
        """
        top = 9 * self.levels + 12
        if address >> top - 1 not in (0, (1 << 65 - top) - 1):
            raise BadAddress("virtual", address, 1)
        table = self.root
        for shift in range(top - 9, 3, -9):
            try:
                entry: int = self._table(table)[address >> shift & 511]
            except NotInSnapshot as error:
                raise NotInSnapshot("page table, physical", error.address, error.size, error.state) from error
            if not entry & _PRESENT:
                break
            if shift == 12 or (entry & _LARGE and shift in (21, 30)):
                low = (1 << shift) - 1
                return (entry & self._mask & ~low) | (address & low)
            table = entry & self._mask
        raise BadAddress("virtual", address, 1)

    def _physical_page(self, page: int) -> int:
        found = self._pages.get(page)
        if found is None:
            if len(self._pages) >= MAX_CACHED_PAGES:
                self._pages.clear()
            found = self._pages[page] = self.translate(page * PAGE)
        return found

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a virtual address; BadAddress or NotInSnapshot name the first byte that cannot be had."""
        out = []
        while True:
            offset = address % PAGE
            length = min(size, PAGE - offset)
            try:
                out.append(self._physical.read(self._physical_page(address // PAGE) + offset, length))
            except NotInSnapshot as error:
                raise NotInSnapshot("virtual", address, size, error.state) from error
            except BadAddress as error:
                raise BadAddress("virtual", address, size) from error
            if length == size:
                return b"".join(out)
            address, size = address + length, size - length
