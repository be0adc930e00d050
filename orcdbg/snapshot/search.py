"""Where does a kernel lie in memory that nobody says anything about?

Its VMCOREINFO note is in memory since it booted, and so is its banner. Both are looked for in one pass over all memory.
What either of them says counts only if the page tables that follow from it lead back to this very banner: memory may
still hold notes and banners of kernels that ran there before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo

NOTE = b"VMCOREINFO\0\0OSRELEASE="  # the note's name, padded, and what its text begins with
MAX_FOUND = 64
_HEADER = struct.Struct("<III")
_PIECE, _LARGE_PAGE, _SPAN = 1 << 22, 1 << 21, 1 << 30
MAX_NOTE = 1 << 16


def _pieces(snapshot: Snapshot, overlap: int) -> Iterator[tuple[int, bytes]]:
    """All memory of the snapshot, each piece with the first bytes of the next; what cannot be read is passed over."""
    for start, end in snapshot.ranges() if snapshot.ranges else ():
        for at in range(start, end, _PIECE):
            try:
                yield at, snapshot.physical.read(at, min(_PIECE + overlap, end - at))
            except MemoryFault:
                yield from _pages(snapshot, at, min(at + _PIECE, end))


def _pages(snapshot: Snapshot, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    for at in range(start, end, PAGE):
        try:
            yield at, snapshot.physical.read(at, min(PAGE, end - at))
        except MemoryFault:
            continue


def _occurrences(data: bytes, wanted: bytes, limit: int) -> Iterator[int]:
    at = data.find(wanted)
    while 0 <= at < limit:
        yield at
        at = data.find(wanted, at + 1)


def find_marks(snapshot: Snapshot, wanted: Mapping[str, bytes]) -> dict[str, list[int]]:
    """The physical addresses at which each of some strings occurs, in order, at most 64 of each.

    Raises:
        OrcdbgError: the snapshot's reader cannot say which memory there is.
    """
    if snapshot.ranges is None:
        raise OrcdbgError(f"{snapshot.format}: its reader cannot say which memory there is, so it cannot be searched")
    overlap = max(map(len, wanted.values()))
    found: dict[str, list[int]] = {name: [] for name in wanted}
    for start, data in _pieces(snapshot, overlap):
        for name, mark in wanted.items():
            found[name] += [start + at for at in _occurrences(data, mark, _PIECE)]
            del found[name][MAX_FOUND:]
    return found


def read_note(snapshot: Snapshot, mark: int) -> dict[str, str]:
    """The VMCOREINFO note whose name is at a physical address; empty where there is none."""
    try:
        name_size, size, kind = _HEADER.unpack(snapshot.physical.read(mark - _HEADER.size, _HEADER.size))
        if (name_size, kind) != (11, 0) or not 0 < size <= MAX_NOTE:
            return {}
        return parse_vmcoreinfo(snapshot.physical.read(mark + 12, size))
    except MemoryFault:
        return {}


def roots_by_banner(
    snapshot: Snapshot, banner_at: int, banner: int, root: int, text: int
) -> Iterator[tuple[int, int, int, int]]:
    """Slide, phys_base, top page table and levels that follow when the banner is at a physical address.

    Args:
        snapshot: the machine.
        banner_at: physical address of the banner.
        banner: its link address.
        root: link address of the kernel's top page table.
        text: link address of the kernel's first text.
    """
    loaded = banner_at - (banner - KERNEL_BASE)
    if loaded % _LARGE_PAGE:
        return
    table, place = root - KERNEL_BASE + loaded, text - KERNEL_BASE + loaded
    for levels in (4, 5):
        memory = KernelMemory(snapshot.physical, table, levels)
        for slide in range(0, _SPAN, _LARGE_PAGE):
            if text + slide >= 1 << 64 or not _leads_to(memory, text + slide, place):
                continue
            yield slide, loaded - slide, table, levels
            break


def _leads_to(memory: KernelMemory, address: int, physical: int) -> bool:
    try:
        return memory.translate(address) == physical
    except MemoryFault:
        return False
