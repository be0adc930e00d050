"""Which places do the image's self-relative tables name, and what did the build put there?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.base.reading import AddressSpace, self_relative
from orcdbg.base.sizes import U64
from orcdbg.image.vmlinux import Image
from orcdbg.patches.site import U8Array, U64Array, windows

_CHUNK = 1 << 20
MAX_ENTRIES = 1 << 19  # of a table that is gone through one by one; a kernel of 2026 has some ten thousand


class BoundedTable(NamedTuple):
    """A table that a vmlinux keeps in its `.rodata`, between two symbols, and a module's file in a section of its own.

    Attributes:
        section: the section's name in a module's file, and in messages.
        start: symbol of the first entry in a vmlinux.
        stop: symbol after the last.
    """

    section: str
    start: str
    stop: str


def check_entries(name: str, count: int) -> None:
    """Raises UnsupportedFormat for a table with more entries than any kernel has."""
    if count > MAX_ENTRIES:
        raise UnsupportedFormat(name, f"{count} entries, where {MAX_ENTRIES} are far more than a kernel has")


def section_sites(image: Image, name: str, slide: int) -> U64Array:
    """The run-time addresses in a section of the image that is a list of self-relative words; empty without it.

    Args:
        image: where the section is.
        name: its name.
        slide: run-time minus link addresses.

    Raises:
        UnsupportedFormat: the section is damaged.
    """
    section = image.find_section(name)
    if section is None:
        return np.empty(0, dtype=np.uint64)
    return self_relative(image.section_data(name), section.address + slide)


def displacement(starts: U64Array, size: int, targets: U64Array | int) -> U8Array:
    """The four bytes of a branch of `size` bytes at each start that goes to its target, of shape (starts, 4)."""
    goal = np.uint64(targets) if isinstance(targets, int) else targets
    low = (goal - starts - np.uint64(size)).astype(np.uint32)
    return np.ascontiguousarray(low).view(np.uint8).reshape(-1, 4)


def branches(opcode: int, starts: U64Array, targets: U64Array | int) -> U8Array:
    """Five-byte calls (`opcode` 0xe8) or jumps (0xe9) from each start to its target, of shape (starts, 5)."""
    out = np.empty((len(starts), 5), dtype=np.uint8)
    out[:, 0] = opcode
    out[:, 1:] = displacement(starts, 5, targets)
    return out


def branch_targets(starts: U64Array, rows: U8Array) -> U64Array:
    """Where branches go whose displacement is the last four bytes of each row."""
    words = np.ascontiguousarray(rows[:, -4:]).view("<i4").ravel().astype(np.int64)
    return starts + np.uint64(rows.shape[1]) + words.view(np.uint64)


def repeated(data: bytes, count: int) -> U8Array:
    """`count` equal rows."""
    return np.broadcast_to(np.frombuffer(data, dtype=np.uint8), (count, len(data)))


def built_bytes(space: AddressSpace, starts: U64Array, size: int) -> U8Array:
    """`size` bytes as built at each address, a row each; zeros where the image has none.

    `space` is the image at the addresses given. It is read a chunk at a time, so that looking at the first bytes of ten
    thousand sites neither makes ten thousand reads nor keeps the whole text.
    """
    out = np.zeros((len(starts), size), dtype=np.uint8)
    order = np.argsort(starts, kind="stable")
    ordered = starts[order]

    begin = 0
    while begin < len(ordered):
        first = int(ordered[begin])
        end = int(np.searchsorted(ordered, np.uint64(min(first + _CHUNK, U64)), side="left"))
        end = max(end, begin + 1)  # the last address of all is below none
        last = int(ordered[end - 1]) + size

        rows = order[begin:end]
        try:
            chunk = np.frombuffer(space.read(first, last - first), dtype=np.uint8)
            out[rows] = windows(chunk, size)[(starts[rows] - np.uint64(first)).view(np.int64)]
        except MemoryFault:
            _one_by_one(space, starts, rows, out)
        begin = end
    return out


def _one_by_one(space: AddressSpace, starts: U64Array, rows: npt.NDArray[np.intp], out: U8Array) -> None:
    """Reads places whose neighbourhood cannot be read in one piece."""
    size = out.shape[1]
    for row in rows.tolist():
        try:
            out[row] = np.frombuffer(space.read(int(starts[row]), size), dtype=np.uint8)
        except MemoryFault:
            continue
