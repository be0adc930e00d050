"""At which physical address is a kernel virtual address, by the kernel's own page tables?"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import BadAddress, NotInSnapshot
from orcdbg.base.reading import AddressSpace, I64Array, PieceReader, U64Array
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.x86.paging import CR3_USER_HALF, NX, PHYSICAL, PRESENT, PSE, RW

MAX_CACHED_TABLES = 4096
MAX_CACHED_PAGES = 1 << 18
_REPEATED = 64
_LEAF_SHIFT = 21  # addresses that agree above it share their last page table, or their large page


def roots_of(cr3: int) -> list[int]:
    """The physical addresses of the top page table that CR3 can mean: the kernel's half of two comes before the user's."""
    given = cr3 & PHYSICAL
    return list(dict.fromkeys((given & ~CR3_USER_HALF, given)))


class PageLevel(enum.Enum):
    """A level of page tables, as the kernel names it."""

    PGD = "PGD"
    P4D = "P4D"
    PUD = "PUD"
    PMD = "PMD"
    PTE = "PTE"


_LEVELS = {
    4: (PageLevel.PGD, PageLevel.PUD, PageLevel.PMD, PageLevel.PTE),
    5: (PageLevel.PGD, PageLevel.P4D, PageLevel.PUD, PageLevel.PMD, PageLevel.PTE),
}


class TableEntry(NamedTuple):
    """One page table entry on the way to a page: its level, where it lies physically, its value."""

    level: PageLevel
    address: int
    value: int


class Translation(NamedTuple):
    """How an address was translated: the entries on the way, and the physical address, or why there is none.

    `size` is that of the page.
    """

    entries: tuple[TableEntry, ...]
    physical: int | None
    size: int
    why: str | None

    @property
    def is_writable(self) -> bool:
        """Whether all entries on the way let the page be written."""
        return all(entry.value & RW for entry in self.entries)

    @property
    def is_executable(self) -> bool:
        """Whether no entry on the way forbids to run what is there."""
        return not any(entry.value & NX for entry in self.entries)


class MappedRun(NamedTuple):
    """Addresses `address` to `address + size` lie at `physical` and behind it."""

    address: int
    physical: int
    size: int


class _Table(NamedTuple):
    """A page table to be gone through: where it is, how many address bits are below its entries', its first address."""

    address: int
    shift: int
    base: int


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
        self._mask = PHYSICAL & ~sme_mask
        self._tables: dict[int, memoryview] = {}
        self._pages: dict[int, int] = {}
        # What the walk for an address came to, for all addresses that share its upper bits: see `_leaf`.
        self._leaves: dict[int, tuple[memoryview, int, int]] = {}

    def forget(self) -> None:
        """Drops what was cached of page tables: for memory that changes, as a live guest's does between stops."""
        self._tables.clear()
        self._pages.clear()
        self._leaves.clear()

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
        leaf = self._leaves.get(address >> _LEAF_SHIFT)
        if leaf is None:
            if len(self._leaves) >= MAX_CACHED_TABLES:
                self._leaves.clear()
            leaf = self._leaves[address >> _LEAF_SHIFT] = self._leaf(address)
        table, shift, entry = leaf
        if shift == 12:
            entry = table[address >> 12 & 511]
            if not entry & PRESENT:
                raise BadAddress("virtual", address, 1)
        low = (1 << shift) - 1
        return (entry & self._mask & ~low) | (address & low)

    def _leaf(self, address: int) -> tuple[memoryview, int, int]:
        """The last table on the way to an address, how many bits are left there, and, for a large page, its entry."""
        top = 9 * self.levels + 12
        if address >> top - 1 not in (0, (1 << 65 - top) - 1):
            raise BadAddress("virtual", address, 1)
        where = self.root
        for shift in range(top - 9, 3, -9):
            try:
                table = self._table(where)
            except NotInSnapshot as error:
                raise NotInSnapshot("page table, physical", error.address, error.size, error.state) from error
            entry: int = table[address >> shift & 511]
            if shift == 12 or (entry & PRESENT and entry & PSE and shift in (21, 30)):
                return table, shift, entry
            if not entry & PRESENT:
                break
            where = entry & self._mask
        raise BadAddress("virtual", address, 1)

    def translate_pages(self, pages: U64Array) -> tuple[U64Array, npt.NDArray[np.bool_]]:
        """Physical addresses of many pages, given by number, and which of them there are; the same walk, once a region."""
        physical, known = np.zeros(len(pages), dtype=np.uint64), np.zeros(len(pages), dtype=bool)
        order = np.argsort(pages, kind="stable")
        regions = (pages >> np.uint64(_LEAF_SHIFT - 12))[order]
        bounds = np.flatnonzero(np.concatenate(([True], regions[1:] != regions[:-1], [True]))).tolist()
        for first, last in itertools.pairwise(bounds):
            rows = order[first:last]
            address = int(pages[rows[0]]) * PAGE
            try:
                table, shift, entry = self._leaf(address)
            except (BadAddress, NotInSnapshot):
                continue
            inside = pages[rows] * np.uint64(PAGE) & np.uint64((1 << shift) - 1)
            entries = np.full(len(rows), entry, dtype=np.uint64)
            if shift == 12:
                entries = np.frombuffer(table, dtype="<u8")[(pages[rows] & np.uint64(511)).astype(np.intp)]
            physical[rows] = entries & np.uint64(self._mask & ~((1 << shift) - 1)) | inside
            known[rows] = entries & np.uint64(PRESENT) != 0
        return physical, known

    def read_pieces(self, addresses: U64Array, sizes: I64Array) -> list[bytes | None]:
        """Many pieces of up to a page each, None for each that cannot be had in one: it has to be read alone."""
        last = addresses + sizes.astype(np.uint64) - np.uint64(1)
        pages, which = np.unique(np.concatenate((addresses, last)) // np.uint64(PAGE), return_inverse=True)
        physical, known = self.translate_pages(pages)
        first, end = which[: len(addresses)], which[len(addresses) :]
        start = physical[first] + addresses % np.uint64(PAGE)
        whole = known[first] & known[end] & (physical[end] + last % np.uint64(PAGE) - start == last - addresses)
        whole &= (sizes > 0) & (sizes <= PAGE)
        found: list[bytes | None] = [None] * len(addresses)
        if isinstance(self._physical, PieceReader):
            pieces = self._physical.read_pieces(start[whole], sizes[whole])
            for place, data in zip(np.flatnonzero(whole).tolist(), pieces, strict=True):
                found[place] = data
        return found

    def is_mapped(self, address: int) -> bool:
        """Whether the page tables have something for the 2 MiB around an address: a page, or a table of small ones."""
        try:
            self._leaf(address)
        except (BadAddress, NotInSnapshot):
            return False
        return True

    def runs(self, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
        """What is mapped of a range, by address; tables that are not in the snapshot map nothing.

        Args:
            start: the first address.
            end: the first one behind, in the same half of the address space.
            budget: of page tables: one that leads to itself maps as much as the address space has. A table that was
                gone through before costs more; the kernel has such for KASAN's shadow of what is not there.
        """
        top = 9 * self.levels + 12
        seen: set[int] = set()
        pending: list[_Table | MappedRun] = [_Table(self.root, top - 9, start - start % (1 << top))]
        while pending:
            following = pending.pop()
            if isinstance(following, MappedRun):
                yield following
                continue
            cost = _REPEATED if following.address in seen else 1
            if not budget.take("page tables", following.address, cost):
                return
            seen.add(following.address)
            pending += reversed(list(self._in_table(following, start, end)))

    def _in_table(self, table: _Table, start: int, end: int) -> Iterator[_Table | MappedRun]:
        """Pages and further tables of one table, as far as they are of [start, end)."""
        try:
            entries = np.frombuffer(self._table(table.address), dtype="<u8")
        except NotInSnapshot:
            return
        shift, base = table.shift, table.base
        first, last = max(start - base, 0) >> shift, min((end - 1 - base) >> shift, 511)
        for index in (np.flatnonzero(entries[first : last + 1] & np.uint64(PRESENT)) + first).tolist():
            entry, where = int(entries[index]), base + (index << shift)
            if shift == 12 or (entry & PSE and shift in (21, 30)):
                physical = entry & self._mask & ~((1 << shift) - 1)
                low, high = max(where, start), min(where + (1 << shift), end)
                yield MappedRun(low, physical + low - where, high - low)
            else:
                yield _Table(entry & self._mask, shift - 9, where)

    def explain(self, address: int, root: int | None = None) -> Translation:
        """What `translate` does, entry by entry.

        Args:
            address: virtual.
            root: physical address of another top page table, as of a task's own memory.
        """
        top = 9 * self.levels + 12
        if address >> top - 1 not in (0, (1 << 65 - top) - 1):
            return Translation((), None, 0, f"not canonical with {self.levels} levels of page tables")
        table = self.root if root is None else root
        found: list[TableEntry] = []
        for level, shift in zip(_LEVELS[self.levels], range(top - 9, 3, -9), strict=True):
            index = address >> shift & 511
            try:
                entry = self._table(table)[index]
            except NotInSnapshot:
                return Translation(
                    tuple(found), None, 0, f"the table with the {level.value} entry is not in the snapshot"
                )
            found.append(TableEntry(level, table + 8 * index, entry))
            if not entry & PRESENT:
                return Translation(tuple(found), None, 0, f"the {level.value} entry is not present")
            if shift == 12 or (entry & PSE and shift in (21, 30)):
                low = (1 << shift) - 1
                return Translation(tuple(found), (entry & self._mask & ~low) | (address & low), low + 1, None)
            table = entry & self._mask
        raise AssertionError("the last level has a page")

    @property
    def encryption_mask(self) -> int:
        """The memory-encryption bit of page table entries, 0 without."""
        return PHYSICAL & ~self._mask

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
