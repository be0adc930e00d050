"""How is physical memory read that a file holds unpacked, in stretches of its own order?"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from orcdbg.base.errors import Absence, NotInSnapshot, UnsupportedFormat
from orcdbg.base.intervals import Pieces
from orcdbg.base.reading import ByteSource, I64Array, U64Array
from orcdbg.base.sizes import U64


class Extent(NamedTuple):
    """`size` bytes from `offset` of a file are physical memory from `physical` on; the memory is `memory_size` long.

    What is beyond `size` the file names, but does not hold.
    """

    physical: int
    source: ByteSource
    offset: int
    size: int
    memory_size: int

    @property
    def held(self) -> int:
        """How many of the bytes are in the file as it is."""
        return max(0, min(self.size, self.source.size - self.offset))


class ExtentMemory:
    """Physical memory as extents of files: an AddressSpace. Where extents overlap, the later one is read."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self.extents = extents
        self._held = Pieces([(min(one.physical, U64), min(one.physical + one.held, U64)) for one in extents])

    @functools.cached_property
    def _named(self) -> Pieces:
        """What the files name, held or not."""
        ends = [one.physical + max(one.size, one.memory_size) for one in self.extents]
        return Pieces([(min(one.physical, U64), min(end, U64)) for one, end in zip(self.extents, ends, strict=True)])

    def _why_missing(self, address: int) -> Absence:
        found = self._named.find(address)
        if found is None:
            return Absence.ABSENT
        one = self.extents[found.piece]
        return Absence.ZERO_FILLED if address >= one.physical + one.size else Absence.CUT_OFF

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; NotInSnapshot where no extent holds one of them."""
        out = []
        while True:
            found = self._held.find(address)
            if found is None:
                raise NotInSnapshot("physical", address, size, self._why_missing(address))
            extent, length = self.extents[found.piece], min(size, found.end - address)
            try:
                out.append(extent.source.read_at(extent.offset + address - extent.physical, length))
            except UnsupportedFormat as error:  # packed data that do not unpack
                raise NotInSnapshot("physical", address, size, Absence.DAMAGED) from error
            if length >= size:
                return b"".join(out)
            address, size = address + length, size - length

    def read_pieces(self, addresses: U64Array, sizes: I64Array) -> list[bytes | None]:
        """Many pieces, None for each that does not lie in one extent: such a piece has to be read alone."""
        which, ends = self._held.find_all(addresses)
        whole = (which >= 0) & (sizes >= 0) & (ends - addresses >= sizes.astype(np.uint64))
        found: list[bytes | None] = [None] * len(addresses)
        rows = (np.flatnonzero(whole), which[whole], addresses[whole], sizes[whole])
        for place, piece, address, size in zip(*(row.tolist() for row in rows), strict=True):
            extent = self.extents[piece]
            try:
                found[place] = extent.source.read_at(extent.offset + address - extent.physical, size)
            except UnsupportedFormat:  # as in `read`, which will say so
                continue
        return found

    def left_out(self) -> dict[str, int]:
        """Bytes that the files name and do not hold, by why."""
        zeros = sum(max(one.memory_size - one.size, 0) for one in self.extents)
        return {"zero-filled": zeros, "cut off": sum(one.size - one.held for one in self.extents)}

    def ranges(self) -> Iterator[tuple[int, int]]:
        """[start, end) of all memory that can be read, in order."""
        for one in self._held:
            yield one.start, one.end


def cut_off_warnings(source: ByteSource, extents: Sequence[Extent]) -> list[str]:
    """A warning where the file ends before its memory does."""
    lost = sum(one.size - one.held for one in extents)
    if not lost:
        return []
    return [f"{source.name}: the file is cut off: {lost} bytes of memory that its headers name are not in it"]
