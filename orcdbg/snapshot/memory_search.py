"""Where in memory does a value or a text stand?

Memory is looked at in pieces of some megabytes, each by numpy or by one search for bytes, so that it goes at the speed at
which the file can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from orcdbg.base.errors import MemoryFault, UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.pagetables import MappedRun

_PIECE = 4 << 20
_TYPES: Mapping[int, np.dtype[np.unsignedinteger[Any]]] = {
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}
MAX_TEXT = 4096


class Hit(NamedTuple):
    """A place that matches: its address, and the word or the bytes that stand there."""

    address: int
    found: int | bytes


@dataclass(frozen=True, slots=True)
class WordPattern:
    """Words that are aligned to their size.

    Attributes:
        width: bytes of a word: 2, 4 or 8.
        values: any of them matches.
        ignored: bits that may be anything.
    """

    width: int
    values: Sequence[int]
    ignored: int = 0

    @property
    def overlap(self) -> int:
        """Bytes of the next piece that a match may need."""
        return 0

    def matches(self, data: bytes) -> Iterator[tuple[int, int | bytes]]:
        """Offsets and words of the matches in some bytes, which begin aligned."""
        words = np.frombuffer(data, dtype=_TYPES[self.width], count=len(data) // self.width)
        all_bits = (1 << 8 * self.width) - 1
        kept = words.dtype.type(all_bits & ~self.ignored)
        rows: set[int] = set()
        for value in self.values:
            wanted = words.dtype.type(value & all_bits)
            is_hit = words == wanted if not self.ignored else words & kept == wanted & kept
            # any() of some megabytes takes a tenth of what flatnonzero() takes, and most pieces have no hit.
            if is_hit.any():
                rows.update(np.flatnonzero(is_hit).tolist())
        for row in sorted(rows):
            yield row * self.width, int(words[row])


@dataclass(frozen=True, slots=True)
class TextPattern:
    """Bytes at any address; any of `texts` matches.

    Raises:
        UsageError: one is empty, or longer than anybody searches for.
    """

    texts: Sequence[bytes]

    def __post_init__(self) -> None:
        if not all(0 < len(text) <= MAX_TEXT for text in self.texts):
            raise UsageError(f"a text to search for has 1 to {MAX_TEXT} bytes")

    @property
    def overlap(self) -> int:
        """Bytes of the next piece that a match may need."""
        return max(map(len, self.texts)) - 1

    def matches(self, data: bytes) -> Iterator[tuple[int, int | bytes]]:
        """Offsets and texts of the matches in some bytes."""
        found = []
        for text in self.texts:
            place = data.find(text)
            while place >= 0:
                found.append((place, text))
                place = data.find(text, place + 1)
        yield from sorted(found)


Pattern = WordPattern | TextPattern


def search(physical: AddressSpace, runs: Iterable[MappedRun], pattern: Pattern) -> Iterator[Hit]:
    """The matches in stretches of memory, by their order; what cannot be read is passed over.

    Args:
        physical: the machine's memory.
        runs: where to look. A text that goes on from one into the next is found where they are neighbours at both addresses.
        pattern: what to look for.
    """
    for run in joined(runs):
        end = run.address + run.size
        for address, data in _pieces(physical, run, pattern.overlap):
            # A match that begins in the overlap is the next piece's.
            limit = min(_PIECE, end - address)
            for offset, found in pattern.matches(data):
                if offset < limit:
                    yield Hit(address + offset, found)


def joined(runs: Iterable[MappedRun]) -> Iterator[MappedRun]:
    """Runs that follow each other at both addresses as one."""
    last: MappedRun | None = None
    for run in runs:
        if last is not None and run.address == last.address + last.size and run.physical == last.physical + last.size:
            last = last._replace(size=last.size + run.size)
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def _pieces(physical: AddressSpace, run: MappedRun, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of a run by address, each with the first bytes of the next; page by page where some cannot be read."""
    for start in range(0, run.size, _PIECE):
        size = min(_PIECE + overlap, run.size - start)
        try:
            yield run.address + start, physical.read(run.physical + start, size)
        except MemoryFault:
            yield from _by_pages(physical, run, start, min(start + _PIECE, run.size), overlap)


def _by_pages(
    physical: AddressSpace, run: MappedRun, start: int, end: int, overlap: int
) -> Iterator[tuple[int, bytes]]:
    """As `_pieces`, of stretches of pages that can be read."""
    parts: list[bytes] = []
    first = start
    place = start
    while place < end:
        size = min(PAGE - (run.physical + place) % PAGE, end - place)
        try:
            parts.append(physical.read(run.physical + place, size))
        except MemoryFault:
            if parts:
                yield run.address + first, b"".join(parts)
            parts = []
            first = place + size
        place += size
    if parts:
        yield run.address + first, b"".join(parts)
    del overlap  # a text that goes on behind a hole is none
