"""What is known of one place where the kernel changes its own text?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import OrcdbgError

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
    """One pass at one place.

    Attributes:
        mechanism: name of the pass's mechanism.
        address: run-time address of the first byte.
        size: bytes of the place.
        name: the patch's, in the kernel's words: a feature, a pointer of pv_ops, a static key.
        image: the bytes as built, relocated; empty for a module without its file.
        expected: the bytes as this pass left them; None where that cannot be told.
        decided_by: the state that decided, or why nothing could be decided.
        order: the pass's number among those that have a place in the same cluster, from 0, in the kernel's order.
    """

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

    Args:
        address: run-time address of the first byte.
        data: the bytes; a bytearray is changed in place.
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
        """`size` bytes as the passes so far left them; fewer where the stretch ends before. `address` must lie in it."""
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
        """`size` bytes at each address, as an array of shape (addresses, size); zeros for what lies outside the stretch."""
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
        """Overwrites the bytes at each address with its row of `rows`; rows that would leave the stretch are not written."""
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


# What a pass may raise where it cannot tell: the state that decides is missing, or what it reads is damaged. Either way
# the place is undecided, and the rest is replayed.
CANNOT_TELL = (Undecidable, OrcdbgError)


class PatchPass(Protocol):
    """One run of the kernel over one table of places: where it writes, and what. Plug-ins bring passes of this form too.

    All addresses are run-time addresses.

    **Order.** Passes stand in the order in which the kernel ran them, and a pass goes over its places in the order of
    `spans()`. Where places overlap, what is written last holds: `apply` starts from what earlier passes, and earlier places
    of this one, left in `text`. It keeps nothing of `text` from one call to the next, for the ledger replays the places of
    one cluster alone, and that may be this one place; an audit replays all of them.

    **Bounds.** `text` is a stretch that holds place `index` whole: for the ledger a cluster, just the places that overlap
    with this one; for an audit a whole text. Who calls bounds the stretch, and never asks about places that do not lie
    whole inside it. A pass may read and write [start, start + size) of its place and nothing else of `text`: bytes beyond
    may not be there, and then `read` gives fewer, `gather` gives zeros, and writes are cut off. Instructions elsewhere
    (replacements, thunks) come from the image as built, state from memory by names. Expected bytes never come from the text
    in memory, which is what they are compared with; docs/patches.md has the few exceptions.

    **Numbers.** `spans()` answers the same for as long as the pass lives, so that a place's index is a name for it. Its
    starts and sizes come from the image or the snapshot, and may be hostile: any address may be there, and twice. Who makes
    the pass bounds how many there are (`check_entries`, `Budget`).

    **Errors.** Both methods may raise what is in `CANNOT_TELL`, and no other exception, whatever image and snapshot hold.
    Raised by `spans()`, none of the places is known. Raised by `apply`, this one is undecided until a later pass writes
    there, and what `apply` wrote before it raised is not looked at.

    Attributes:
        mechanism: name of the mechanism, as in `patch list --mechanism`; several passes may have one name.
    """

    mechanism: str

    def spans(self) -> Spans:
        """Start and size, in bytes, of each place, in the order in which the kernel goes over them.

        Raises:
            Undecidable: what lists the places is not in the snapshot.
            OrcdbgError: it is damaged.
        """

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Replays one place.

        Args:
            index: number of the place in `spans()`.
            text: the bytes so far; changed in place.

        Returns:
            What was done and why; None where this pass leaves the place alone.

        Raises:
            Undecidable: the state that decides is not in the snapshot.
            OrcdbgError: it is damaged.
        """


def make_spans(
    starts: Sequence[int] | npt.NDArray[np.generic], sizes: Sequence[int] | npt.NDArray[np.generic]
) -> Spans:
    """Spans from plain sequences: run-time addresses, and bytes of each place."""
    return Spans(np.asarray(starts, dtype=np.uint64), np.asarray(sizes, dtype=np.uint64))


def known_spans(the_pass: PatchPass) -> Spans:
    """A pass's places; none where they cannot be told."""
    try:
        return the_pass.spans()
    except CANNOT_TELL:
        return make_spans([], [])
