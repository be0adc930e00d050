"""What is known of one place where the kernel changes its own text?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

U8Array = npt.NDArray[np.uint8]
U64Array = npt.NDArray[np.uint64]


class Spans(NamedTuple):
    """The places of a pass: run-time start addresses and lengths in bytes, in the pass's own order."""

    starts: U64Array
    sizes: U64Array


class Applied(NamedTuple):
    """What a pass did at a place: the patch's name, and the state that decided it."""

    name: str
    decided_by: str


@dataclass(frozen=True, slots=True)
class PatchSite:
    """One pass at one place: `image` as built (relocated), `expected` as this pass left it; None when undecidable."""

    mechanism: str
    address: int
    size: int
    name: str
    image: bytes
    expected: bytes | None
    decided_by: str
    order: int

    @property
    def end(self) -> int:
        """First address after the site."""
        return self.address + self.size


class WorkingText:
    """The bytes of a stretch of text while passes are replayed on it, addressed as at run time.

    `read` and `write` take one place, `gather` and `scatter` many of one width; both change the same bytes.
    """

    def __init__(self, address: int, data: bytes | bytearray) -> None:
        self.address = address
        self.data = data if isinstance(data, bytearray) else bytearray(data)
        self.array: U8Array = np.frombuffer(self.data, dtype=np.uint8)
        self._doubtful: set[int] = set()

    @property
    def end(self) -> int:
        """First address after the stretch."""
        return self.address + len(self.data)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes as the passes so far left them."""
        start = address - self.address
        return bytes(self.data[start : start + size])

    def write(self, address: int, data: bytes) -> None:
        """Overwrites bytes inside the stretch; what would leave it is not written."""
        start = max(address - self.address, 0)
        end = min(start + len(data), len(self.data))
        self._put(start, data[: end - start])

    def _put(self, start: int, data: bytes) -> None:
        self.data[start : start + len(data)] = data
        if self._doubtful:
            self._doubtful.difference_update(range(start, start + len(data)))

    def lose(self, address: int, size: int) -> None:
        """Notes that a pass wrote here, and that nobody can tell what; a later pass that writes here mends it."""
        self._doubtful.update(range(max(address - self.address, 0), min(address + size - self.address, len(self.data))))

    def knows(self, address: int, size: int) -> bool:
        """True when all of those bytes are known."""
        return self._doubtful.isdisjoint(range(address - self.address, address + size - self.address))

    def gather(self, addresses: U64Array, size: int) -> U8Array:
        """`size` bytes at each address, a row each; zeros for what lies outside the stretch."""
        offsets = (addresses - np.uint64(self.address)).view(np.int64)
        last = len(self.array) - size
        if len(offsets) and (last < 0 or int(offsets.min()) < 0 or int(offsets.max()) > last):
            return self._gather_clipped(offsets, size)
        return windows(self.array, size)[offsets]

    def _gather_clipped(self, offsets: npt.NDArray[np.int64], size: int) -> U8Array:
        places = offsets[:, None] + np.arange(size)
        inside = (places >= 0) & (places < len(self.array))
        rows: U8Array = np.where(inside, self.array[np.where(inside, places, 0)], np.uint8(0))
        return rows

    def scatter(self, addresses: U64Array, rows: U8Array) -> None:
        """Overwrites the bytes at each address with a row; rows that would leave the stretch are not written."""
        offsets = (addresses - np.uint64(self.address)).view(np.int64)
        keep = (offsets >= 0) & (offsets <= len(self.array) - rows.shape[1])
        if not keep.all():
            offsets, rows = offsets[keep], rows[keep]
        if len(offsets):
            self._put_rows(offsets, rows)

    def _put_rows(self, offsets: npt.NDArray[np.int64], rows: U8Array) -> None:
        windows(self.array, rows.shape[1])[offsets] = rows
        if self._doubtful:
            for start in offsets.tolist():
                self._doubtful.difference_update(range(start, start + rows.shape[1]))


def windows(array: U8Array, size: int) -> U8Array:
    """All stretches of `size` bytes in `array`, as a view: row i starts at byte i."""
    count = max(len(array) - size + 1, 0)
    return np.ndarray((count, size), dtype=np.uint8, buffer=array.data, strides=(1, 1))


class Undecidable(Exception):
    """A pass cannot tell what it wrote, because the state that decided it is not in the snapshot."""


class PatchPass(Protocol):
    """One mechanism as the kernel runs it over its sites.

    `apply` replays place `index` on `text`, returning None where this pass leaves the place alone, and raises
    `Undecidable` where the state that decides is missing.
    """

    mechanism: str

    def spans(self) -> Spans: ...

    def apply(self, index: int, text: WorkingText) -> Applied | None: ...


def make_spans(
    starts: Sequence[int] | npt.NDArray[np.generic], sizes: Sequence[int] | npt.NDArray[np.generic]
) -> Spans:
    """Spans from plain sequences."""
    return Spans(np.asarray(starts, dtype=np.uint64), np.asarray(sizes, dtype=np.uint64))


def known_spans(the_pass: PatchPass) -> Spans:
    """A pass's places; none where the snapshot does not tell them."""
    try:
        return the_pass.spans()
    except Undecidable:
        return make_spans([], [])
