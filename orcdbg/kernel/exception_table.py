"""Where does the kernel go on after a fault that it expects?

`__ex_table` has an entry for each instruction that may fault on a user's address or a lost page, with the place that the
handler of the fault returns to instead. Up to 5.15 most of those places lie in one stretch of text (section .fixup), away
from their functions and without symbols of their own, so that no call leads to the symbol found there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import AddressSpace, U64Array
from orcdbg.kernel.linux import Linux

_ENTRY = "exception_table_entry"
_MAX_BYTES = 1 << 22  # of the table; kernels have some 40 kB


class ExceptionTable:
    """The kernel's own entries, without those of modules.

    Args:
        faulting: addresses of the instructions that may fault.
        landings: where the CPU goes on, in the same order.
    """

    def __init__(self, faulting: U64Array, landings: U64Array) -> None:
        self.faulting = faulting
        self.landings = landings

    def lands_from_outside(self, start: int, end: int) -> bool:
        """Whether a fault of an instruction outside of [start, end) is continued in there."""
        low, high = np.uint64(start), np.uint64(end)
        inside = (self.landings >= low) & (self.landings < high)
        return bool((inside & ((self.faulting < low) | (self.faulting >= high))).any())


def exception_table(linux: Linux, spaces: Sequence[AddressSpace]) -> ExceptionTable:
    """The table, from the first of `spaces` that has it; empty where none does, or the image does not bound it."""
    nothing = np.empty(0, dtype=np.uint64)
    start, end = linux.find_address("__start___ex_table"), linux.find_address("__stop___ex_table")
    if start is None or end is None or not 0 < end - start <= _MAX_BYTES or not linux.types.exists(_ENTRY):
        return ExceptionTable(nothing, nothing)
    try:
        members = {name: linux.types.offset(_ENTRY, name) for name in ("insn", "fixup")}
        size = linux.types.size(_ENTRY)
    except OrcdbgError:
        return ExceptionTable(nothing, nothing)
    if not all(offset + 4 <= size for offset in members.values()):
        return ExceptionTable(nothing, nothing)
    data = next((found for space in spaces if (found := _read(space, start, end - start)) is not None), b"")
    places = np.uint64(start) + np.arange(len(data) // size, dtype=np.uint64) * np.uint64(size)
    rows = np.frombuffer(data[: len(places) * size], dtype=np.uint8).reshape(-1, size)

    def column(offset: int) -> U64Array:
        relative = np.ascontiguousarray(rows[:, offset : offset + 4]).view("<i4").ravel().astype(np.int64)
        found: U64Array = places + np.uint64(offset) + relative.view(np.uint64)
        return found

    return ExceptionTable(column(members["insn"]), column(members["fixup"]))


def _read(space: AddressSpace, address: int, size: int) -> bytes | None:
    try:
        return space.read(address, size)
    except MemoryFault:
        return None
