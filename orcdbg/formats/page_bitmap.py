"""Which page frames does a bitmap in a file name, and how many before a given one, without reading all of it?

The bitmap of a dump of 4 TiB has 128 MiB. How many bits are set is counted for each 512 bytes of it (16 MiB of memory),
which takes 2 MB for 4 TiB; and only as far as questions reach, by whole spans of 1 MiB.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from orcdbg.base.reading import ByteSource

# In bytes of the bitmap: what is counted as one, and what is read from the file at a time to be counted.
BLOCK = 512
SPAN = 1 << 20
_BLOCK_BITS = BLOCK * 8
_SPAN_BITS = SPAN * 8

# Questions come close together: about neighbouring frames, or the few stretches that a walk goes back to.
CACHED_BLOCKS = 256


class PageBitmap:
    """A bitmap in a file, least significant bit first.

    Args:
        source: the file.
        offset: of the bitmap's first byte in it.
        bits: how many bits it has, one a page frame; they are all in the file, which the caller has checked.
    """

    def __init__(self, source: ByteSource, offset: int, bits: int) -> None:
        self._source = source
        self._offset = offset
        self.bits = bits
        self._size = -(-bits // 8)

        # How many bits are set before each span, and within each counted span before each of its blocks. There is one
        # number more than spans, and in each span one more than blocks: the sum.
        self._before_span = [0]
        self._before_block: list[npt.NDArray[np.uint32]] = []

        # Made here and not by a decorator, so that the cache goes with its bitmap.
        self._block = functools.lru_cache(CACHED_BLOCKS)(self._read_block)

    def _read(self, start: int, size: int) -> bytes:
        """Whole blocks of the bitmap, zeros beyond its last byte; fewer than asked for at its end."""
        held = max(0, min(size, self._size - start))
        data = self._source.read_at(self._offset + start, held) if held else b""
        return data + bytes(-len(data) % BLOCK)

    def _read_block(self, block: int) -> int:
        """A block as one number, whose bit n is the block's bit n."""
        return int.from_bytes(self._read(block * BLOCK, BLOCK), "little")

    def test(self, bit: int) -> bool:
        """True where the bit is set; false beyond either end."""
        if not 0 <= bit < self.bits:
            return False
        block, inside = divmod(bit, _BLOCK_BITS)
        return bool(self._block(block) >> inside & 1)

    def _count_span(self) -> None:
        """Counts the next span."""
        start = len(self._before_block) * SPAN
        words = np.frombuffer(self._read(start, SPAN), np.uint64)

        # Ten times as fast as a sum over rows: 0.04 s, not 0.4 s, for the bitmap of 4 TiB.
        first_words = np.arange(0, len(words), BLOCK // 8)
        counts = np.add.reduceat(np.bitwise_count(words), first_words, dtype=np.uint32)
        sums = np.concatenate((np.zeros(1, np.uint32), np.cumsum(counts, dtype=np.uint32)))

        self._before_span.append(self._before_span[-1] + int(sums[-1]))
        self._before_block.append(sums)

    def rank(self, bit: int) -> int:
        """How many bits below `bit` are set, for a bit from 0 to `bits`."""
        block, inside = divmod(bit, _BLOCK_BITS)
        span, block_in_span = divmod(block, SPAN // BLOCK)

        while len(self._before_block) <= span:
            self._count_span()

        before_in_block = self._block(block) & ((1 << inside) - 1)
        return self._before_span[span] + int(self._before_block[span][block_in_span]) + before_in_block.bit_count()

    def rank_so_far(self, bit: int) -> int:
        """As `rank`, without counting more: where earlier questions did not reach as far as `bit`, how many they counted."""
        is_counted = bit // _SPAN_BITS < len(self._before_block)
        return self.rank(bit) if is_counted else self._before_span[-1]

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """[first, last + 1) of each run of set bits among those from `start` to `end`, in order."""
        end = min(end, self.bits)
        run_start: int | None = None

        for span_start in range(start // _SPAN_BITS * _SPAN_BITS, end, _SPAN_BITS):
            data = np.frombuffer(self._read(span_start // 8, SPAN), np.uint8)
            bits = np.unpackbits(data, bitorder="little")
            bits[: max(0, start - span_start)] = 0
            bits[max(0, end - span_start) :] = 0

            # Where a bit differs from the one before it, a run starts or ends; a run may go on from the span before.
            edges = np.flatnonzero(np.diff(bits, prepend=np.uint8(run_start is not None)))
            for edge in (edges + span_start).tolist():
                if run_start is None:
                    run_start = edge
                else:
                    yield run_start, edge
                    run_start = None

        if run_start is not None:
            yield run_start, end
