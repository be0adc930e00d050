"""Which bytes of memory does a snapshot hold that `orcdbg trim` cut down to some of them?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orcdbg.base.errors import Absence, NotInSnapshot
from orcdbg.base.intervals import pages_of
from orcdbg.base.reading import AddressSpace, U64Array
from orcdbg.base.sizes import PAGE, U64


class TrimmedMemory:
    """Physical memory of a trimmed snapshot: an AddressSpace. What was left out is not in it, whatever the file's zeros say.

    Args:
        memory: the pages that are in the file.
        kept: the ranges of bytes that were kept, as `parse_trim_note` gives them.
    """

    def __init__(self, memory: AddressSpace, kept: U64Array) -> None:
        self._memory = memory
        self._starts = kept[:, 0]
        self._ends = kept[:, 1]

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The kept ranges, [start, end) in physical addresses, in order."""
        return zip(self._starts.tolist(), self._ends.tolist(), strict=True)

    def left_out(self) -> dict[str, int]:
        """Bytes of the file's pages that were not kept."""
        kept = list(self.ranges())
        pages = sum(1 for _ in pages_of(kept))
        return {"trimmed": pages * PAGE - sum(end - start for start, end in kept)}

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; NotInSnapshot where one of them was left out."""
        in_bounds = np.uint64(max(0, min(address, U64)))
        index = int(np.searchsorted(self._starts, in_bounds, side="right")) - 1
        if address < 0 or index < 0 or address + size > int(self._ends[index]):
            raise NotInSnapshot("physical", address, size, Absence.TRIMMED)

        pieces = []
        while size:
            length = min(size, PAGE - address % PAGE)
            pieces.append(self._read_in_page(address, length))
            address += length
            size -= length
        return b"".join(pieces)

    def _read_in_page(self, address: int, size: int) -> bytes:
        """Kept bytes of one page; pages of zeros take no place in the file."""
        try:
            return self._memory.read(address, size)
        except NotInSnapshot as error:
            if error.state is not Absence.ZERO_FILLED:
                raise
            return bytes(size)
