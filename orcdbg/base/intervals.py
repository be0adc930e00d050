"""Which of several pieces holds an address, where pieces may overlap, and which pages do ranges touch?"""

from __future__ import annotations

import bisect
import heapq
import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from orcdbg.base.reading import I64Array, U64Array
from orcdbg.base.sizes import PAGE


class Stretch(NamedTuple):
    """Addresses `start` to `end`, held by piece number `piece`."""

    start: int
    end: int
    piece: int


def _sweep(pieces: Sequence[tuple[int, int]], order: Sequence[int]) -> Iterator[Stretch]:
    """The stretches of overlapping pieces, by a sweep over all their ends; time n log n whatever they look like."""
    bounds = sorted({bound for i in order for bound in pieces[i]})
    active: list[tuple[int, int]] = []
    following = 0
    for start, end in itertools.pairwise(bounds):
        while following < len(order) and pieces[order[following]][0] == start:
            piece = order[following]
            heapq.heappush(active, (-piece, pieces[piece][1]))
            following += 1
        while active and active[0][1] <= start:
            heapq.heappop(active)
        if active:
            yield Stretch(start, end, -active[0][0])


def _clusters(pieces: Sequence[tuple[int, int]], order: Sequence[int]) -> Iterator[list[int]]:
    """The pieces in groups that overlap each other; most groups are of one."""
    cluster: list[int] = []
    reached = 0
    for i in order:
        if cluster and pieces[i][0] >= reached:
            yield cluster
            cluster = []
        reached = max(reached, pieces[i][1]) if cluster else pieces[i][1]
        cluster.append(i)
    if cluster:
        yield cluster


class Pieces:
    """Finds pieces by address; where some overlap, the later one in the list holds the address.

    It keeps 24 bytes for a piece: files of many gigabytes come in millions of them.

    Args:
        pieces: (start, end) of each, below 2^64; empty ones hold nothing.
    """

    def __init__(self, pieces: Sequence[tuple[int, int]]) -> None:
        self._starts, self._ends, self._which = array("Q"), array("Q"), array("Q")
        order = sorted((i for i, (start, end) in enumerate(pieces) if start < end), key=lambda i: pieces[i])
        for cluster in _clusters(pieces, order):
            if len(cluster) == 1:
                self._add(Stretch(*pieces[cluster[0]], cluster[0]))
            else:
                for stretch in _sweep(pieces, cluster):
                    self._add(stretch)

    def _add(self, stretch: Stretch) -> None:
        if self._which and self._which[-1] == stretch.piece and self._ends[-1] == stretch.start:
            self._ends[-1] = stretch.end
        else:
            for column, value in zip((self._starts, self._ends, self._which), stretch, strict=True):
                column.append(value)

    def __iter__(self) -> Iterator[Stretch]:
        """All stretches by address."""
        return map(Stretch, self._starts, self._ends, self._which)

    def find(self, address: int) -> Stretch | None:
        """The stretch that holds `address`, None in a hole."""
        i = bisect.bisect_right(self._starts, address) - 1
        if i < 0 or address >= self._ends[i]:
            return None
        return Stretch(self._starts[i], self._ends[i], self._which[i])

    def find_all(self, addresses: U64Array) -> tuple[I64Array, U64Array]:
        """For many addresses the piece that holds each, -1 in a hole, and the end of its stretch."""
        starts, ends, which = (
            np.frombuffer(column, dtype=np.uint64) for column in (self._starts, self._ends, self._which)
        )
        if not len(starts):
            return np.full(len(addresses), -1), np.zeros(len(addresses), dtype=np.uint64)
        index = np.searchsorted(starts, addresses, side="right") - 1
        is_held = (index >= 0) & (addresses < ends[index])
        return np.where(is_held, which[index].astype(np.int64), -1), ends[index]

    def next_start(self, address: int) -> int | None:
        """Where the first stretch after `address` starts; None when there is none."""
        index = bisect.bisect_right(self._starts, address)
        return self._starts[index] if index < len(self._starts) else None


def pages_of(ranges: Sequence[tuple[int, int]]) -> Iterator[int]:
    """The numbers of the pages that ranges touch, each once.

    Args:
        ranges: [start, end) in bytes, rising and not overlapping.
    """
    last = -1
    for start, end in ranges:
        first = max(start // PAGE, last + 1)
        last = (end - 1) // PAGE
        yield from range(first, last + 1)


def number_runs(values: Iterable[int]) -> str:
    """Numbers, such as those of CPUs, with runs drawn together: `0-3,8`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
