"""Where does the kernel go on after a fault that it expects?

`__ex_table` has an entry for each instruction that may fault on a user's address or a lost page, with the place that the
handler of the fault returns to instead. Up to 5.15 most of those places lie in one stretch of text (section .fixup), away
from their functions and without symbols of their own, so that no call leads to the symbol found there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.reading import AddressSpace, U64Array, clamped, self_relative
from orcdbg.kernel.linux import Linux

Mask = npt.NDArray[np.bool_]
_ENTRY = "exception_table_entry"
_MAX_BYTES = 1 << 22  # of the table; kernels have some 10 kB
_NOTHING: U64Array = np.empty(0, dtype=np.uint64)


class ExceptionTable:
    """The kernel's own entries, without those of modules; read when they are asked for.

    Args:
        linux: the kernel.
        spaces: what may have the table, by run-time addresses: the first that does is taken.
    """

    def __init__(self, linux: Linux, spaces: Sequence[AddressSpace]) -> None:
        self._linux, self._spaces = linux, spaces

    def lands_from_outside(self, start: int, end: int) -> bool:
        """Whether a fault of an instruction outside of [start, end) is continued in there."""
        from_here, to_here = self._within(start, end)
        return bool((to_here & ~from_here).any())

    def landings_of(self, start: int, end: int) -> list[int]:
        """Where faults of the instructions in [start, end) are continued, outside of it."""
        from_here, to_here = self._within(start, end)
        landings: list[int] = np.unique(self.entries[1][from_here & ~to_here]).tolist()
        return landings

    def _within(self, start: int, end: int) -> tuple[Mask, Mask]:
        """Which entries' faults, and which landings, are in [start, end)."""
        low, high = clamped(start), clamped(end)
        faulting, landings = self.entries
        return (faulting >= low) & (faulting < high), (landings >= low) & (landings < high)

    @functools.cached_property
    def entries(self) -> tuple[U64Array, U64Array]:
        """Addresses of instructions that may fault, and of where the CPU goes on; none where there is no sound table."""
        bounds = (self._linux.find_address("__start___ex_table"), self._linux.find_address("__stop___ex_table"))
        try:
            columns = [self._linux.types.offset(_ENTRY, name) for name in ("insn", "fixup")]
            size = self._linux.types.size(_ENTRY)
        except NotFound:
            return _NOTHING, _NOTHING
        start, end = (bound or 0 for bound in bounds)
        is_sound = 0 < end - start <= _MAX_BYTES and max(columns) + 4 <= size
        if not is_sound or any(number % 4 for number in (size, *columns)):
            return _NOTHING, _NOTHING
        pieces = (_read(space, start, end - start) for space in self._spaces)
        data = next((piece for piece in pieces if piece is not None), b"")
        insn, fixup = (self_relative(data, start, size, column) for column in columns)
        return insn, fixup


def _read(space: AddressSpace, address: int, size: int) -> bytes | None:
    try:
        return space.read(address, size)
    except MemoryFault:
        return None
