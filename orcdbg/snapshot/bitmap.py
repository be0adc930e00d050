"""Which page frames does a bitmap in a file name, and how many before a given one, without reading all of it?

Counts are kept by 512 bytes of bitmap (16 MiB of memory): 2 MB for 4 TiB of memory. They are made as far as questions
reach, by whole spans of 1 MiB.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from orcdbg.base.reading import ByteSource

BLOCK, SPAN = 512, 1 << 20
_BITS = BLOCK * 8
CACHED_BLOCKS = 256


class PageBitmap:
    """A bitmap of `bits` bits at an offset of a file, least significant bit first."""

    def __init__(self, source: ByteSource, offset: int, bits: int) -> None:
        self._source = source
        self._offset = offset
        self.bits = bits
        self._bytes = -(-bits // 8)
        self._before = [0]  # set bits before each span
        self._within: list[npt.NDArray[np.uint32]] = []  # and within it, before each block
        # One instance, one cache: dropped with it.
        self._block = functools.lru_cache(CACHED_BLOCKS)(self._read_block)

    def _read(self, start: int, size: int) -> bytes:
        """Whole blocks of the bitmap, zeros beyond its last byte; fewer than asked for at its end."""
        held = max(0, min(size, self._bytes - start))
        data = self._source.read_at(self._offset + start, held) if held else b""
        return data + bytes(-len(data) % BLOCK)

    def _read_block(self, block: int) -> int:
        return int.from_bytes(self._read(block * BLOCK, BLOCK), "little")

    def test(self, bit: int) -> bool:
        """True where the bit is set; false beyond the end."""
        return bool(0 <= bit < self.bits and self._block(bit // _BITS) >> bit % _BITS & 1)

    def _count_span(self) -> None:
        """Counts the next span."""
        words = np.frombuffer(self._read(len(self._within) * SPAN, SPAN), np.uint64)
        counts = np.bitwise_count(words).reshape(-1, BLOCK // 8).sum(1, np.uint32)
        sums = np.concatenate((np.zeros(1, np.uint32), np.cumsum(counts, dtype=np.uint32)))
        self._before.append(self._before[-1] + int(sums[-1]))
        self._within.append(sums)

    def rank(self, bit: int) -> int:
        """How many bits below `bit` are set."""
        block, inside = divmod(bit, _BITS)
        span, number = divmod(block, SPAN // BLOCK)
        while len(self._within) <= span:
            self._count_span()
        low = self._block(block) & ((1 << inside) - 1)
        return self._before[span] + int(self._within[span][number]) + low.bit_count()

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """[first, last + 1) of each run of set bits from `start` to `end`."""
        opened: int | None = None
        for span in range(start // 8 // SPAN, -(-min(end, self.bits) // 8 // SPAN) + 1):
            first = span * SPAN * 8
            if first >= min(end, self.bits):
                break
            raw = np.frombuffer(self._read(span * SPAN, SPAN), np.uint8)
            bits = np.unpackbits(raw, bitorder="little")
            bits[: max(0, start - first)] = 0
            bits[max(0, min(end, self.bits) - first) :] = 0
            edges = np.flatnonzero(np.diff(bits, prepend=np.uint8(opened is not None)))
            for edge in (edges + first).tolist():
                if opened is None:
                    opened = edge
                else:
                    yield opened, edge
                    opened = None
        if opened is not None:
            yield opened, min(end, self.bits)
