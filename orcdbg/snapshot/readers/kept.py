"""Which bytes of memory were kept, where a snapshot was cut down to some of them?

A trimmed snapshot is an ELF core of whole pages. Bytes of a page that were not kept are zeros in the file; an own note,
which other readers pass over, lists the kept ones, so that nobody takes those zeros for memory.
"""

from __future__ import annotations

import bisect
import contextlib
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import Absence, NotInSnapshot, UnsupportedFormat
from orcdbg.base.reading import AddressSpace
from orcdbg.formats.core_writing import PAGE, Run
from orcdbg.formats.elf import Note

NOTE_OWNER, NOTE_TYPE = "orcdbg", 1
MAX_RANGES = 1 << 22
U64Array = npt.NDArray[np.uint64]


class Recorder:
    """Physical memory that remembers what was read of it: an AddressSpace."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory
        self._read: dict[int, list[tuple[int, int]]] = {}
        self._whole: set[int] = set()
        self._ignored = range(0)

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it."""
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
        """Meanwhile reads of pages in [start, end) are not remembered."""
        self._ignored = range(start // PAGE, -(-end // PAGE))
        try:
            yield
        finally:
            self._ignored = range(0)

    def _note(self, page: int, start: int, end: int) -> None:
        if page in self._whole or page in self._ignored:
            return
        if (start, end) == (0, PAGE):
            self._whole.add(page)
            self._read.pop(page, None)
            return
        ranges = self._read.setdefault(page, [])
        if not ranges or ranges[-1] != (start, end):
            ranges.append((start, end))

    def ranges(self) -> list[tuple[int, int]]:
        """What was read as [start, end) of physical addresses: rising, and neither overlapping nor touching."""
        out: list[tuple[int, int]] = []
        for page in sorted(self._whole | self._read.keys()):
            for low, high in [(0, PAGE)] if page in self._whole else sorted(self._read[page]):
                start, end = page * PAGE + low, page * PAGE + high
                if out and start <= out[-1][1]:
                    out[-1] = (out[-1][0], max(out[-1][1], end))
                else:
                    out.append((start, end))
        return out


def pages_of(ranges: Sequence[tuple[int, int]]) -> Iterator[int]:
    """The numbers of the pages that rising ranges touch, each once."""
    last = -1
    for start, end in ranges:
        yield from range(max(start // PAGE, last + 1), (end - 1) // PAGE + 1)
        last = (end - 1) // PAGE


def runs_of(ranges: Sequence[tuple[int, int]], memory: AddressSpace, blank: Iterable[int] = ()) -> list[Run]:
    """The pages to write, as stretches; those whose kept bytes are zeros apart from the others.

    Args:
        ranges: the kept bytes.
        memory: where they are.
        blank: pages that other readers shall find, with zeros, although nothing of them was kept.
    """
    runs: list[Run] = []
    for page in sorted({*pages_of(ranges), *blank}):
        is_zero = not any(cut_out(ranges, memory, page * PAGE, PAGE))
        if runs and page == runs[-1].first + runs[-1].pages and is_zero == runs[-1].is_zero:
            runs[-1] = runs[-1]._replace(pages=runs[-1].pages + 1)
        else:
            runs.append(Run(page, 1, is_zero))
    return runs


def cut_out(ranges: Sequence[tuple[int, int]], memory: AddressSpace, start: int, size: int) -> bytes:
    """`size` bytes of memory at `start`, zeros for what is in none of the ranges."""
    out = bytearray(size)
    first = max(bisect.bisect_right(ranges, (start, 1 << 64)) - 1, 0)
    for low, high in ranges[first:]:
        low, high = max(low, start), min(high, start + size)
        if low >= start + size:
            break
        if low < high:
            out[low - start : high - start] = memory.read(low, high - low)
    return bytes(out)


def encode_kept(ranges: list[tuple[int, int]]) -> Note:
    """The note that lists the kept bytes: start and end of each range as little-endian 64-bit words, by zlib."""
    return Note(NOTE_OWNER, NOTE_TYPE, zlib.compress(np.array(ranges, dtype="<u8").tobytes(), 9))


def is_list_of_kept(note: Note) -> bool:
    """True for the note that lists the kept bytes."""
    return (note.name, note.type) == (NOTE_OWNER, NOTE_TYPE)


def parse_kept(note: Note, name: str) -> U64Array:
    """The kept ranges in a note, a row [start, end) each.

    Raises:
        UnsupportedFormat: damaged, or more than a snapshot can have.
    """
    expand, limit = zlib.decompressobj(), MAX_RANGES * 16
    try:
        data = expand.decompress(note.data, limit)
    except zlib.error as error:
        raise UnsupportedFormat(name, f"the list of kept memory is damaged: {error}") from error
    if not expand.eof or len(data) % 16:
        raise UnsupportedFormat(name, "the list of kept memory is cut off or too long")
    rows = np.frombuffer(data, dtype="<u8").reshape(-1, 2)
    flat = rows.reshape(-1)
    if (flat[1:] <= flat[:-1]).any():
        raise UnsupportedFormat(name, "the list of kept memory is not in order")
    return rows


class KeptMemory:
    """Physical memory of a trimmed snapshot: what was left out is not in it, whatever the file's zeros say."""

    def __init__(self, memory: AddressSpace, kept: U64Array) -> None:
        self._memory = memory
        self._starts, self._ends = kept[:, 0], kept[:, 1]

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The kept ranges."""
        return zip(self._starts.tolist(), self._ends.tolist(), strict=True)

    def left_out(self) -> dict[str, int]:
        """Bytes of the file's pages that were not kept."""
        kept = list(self.ranges())
        return {"trimmed": sum(1 for _ in pages_of(kept)) * PAGE - sum(end - start for start, end in kept)}

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; NotInSnapshot where one of them was left out."""
        index = int(np.searchsorted(self._starts, np.uint64(max(0, min(address, (1 << 64) - 1))), side="right")) - 1
        if address < 0 or index < 0 or address + size > int(self._ends[index]):
            raise NotInSnapshot("physical", address, size, Absence.TRIMMED)
        pieces = []
        while size:
            length = min(size, PAGE - address % PAGE)
            pieces.append(self._read_in_page(address, length))
            address, size = address + length, size - length
        return b"".join(pieces)

    def _read_in_page(self, address: int, size: int) -> bytes:
        """Kept bytes of one page; pages of zeros take no place in the file."""
        try:
            return self._memory.read(address, size)
        except NotInSnapshot as error:
            if error.state is not Absence.ZERO_FILLED:
                raise
            return bytes(size)
