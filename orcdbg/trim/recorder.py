"""Which memory is read while questions are asked of a snapshot?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE


class Recorder:
    """Physical memory that remembers what was read of it: an AddressSpace.

    What is read is what has to be kept: so a trimmed snapshot answers the questions that were asked of the whole one without
    anybody listing what those need.

    Args:
        memory: physical memory, which answers.
    """

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory
        # [low, high) inside each page; pages that were read whole apart, since those are most and need no list.
        self._read: dict[int, list[tuple[int, int]]] = {}
        self._whole: set[int] = set()
        self._ignored = range(0)

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it; what cannot be read is not remembered."""
        data = self._memory.read(address, size)

        end = address + size
        while address < end:
            page, offset = divmod(address, PAGE)
            length = min(end - address, PAGE - offset)
            self._note(page, offset, offset + length)
            address += length
        return data

    @contextlib.contextmanager
    def ignoring(self, start: int, end: int) -> Iterator[None]:
        """Meanwhile reads of the pages that physical addresses [start, end) touch are not remembered."""
        self._ignored = range(start // PAGE, -(-end // PAGE))
        try:
            yield
        finally:
            self._ignored = range(0)

    def _note(self, page: int, low: int, high: int) -> None:
        if page in self._whole or page in self._ignored:
            return

        if (low, high) == (0, PAGE):
            self._whole.add(page)
            self._read.pop(page, None)
            return

        # A loop reads the same word again and again; one comparison keeps its list short.
        ranges = self._read.setdefault(page, [])
        if not ranges or ranges[-1] != (low, high):
            ranges.append((low, high))

    def ranges(self) -> list[tuple[int, int]]:
        """What was read as [start, end) of physical addresses: rising, and neither overlapping nor touching."""
        joined: list[tuple[int, int]] = []
        for start, end in self._sorted():
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], end))
            else:
                joined.append((start, end))
        return joined

    def _sorted(self) -> Iterator[tuple[int, int]]:
        """The reads by address, a page at a time."""
        for page in sorted(self._whole | self._read.keys()):
            reads = [(0, PAGE)] if page in self._whole else sorted(self._read[page])
            for low, high in reads:
                yield page * PAGE + low, page * PAGE + high
