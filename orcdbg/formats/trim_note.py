"""How does the note look by which a trimmed snapshot says which bytes of its pages were kept?

A trimmed snapshot is an ELF core of whole pages; bytes of a page that were not kept are zeros in the file. This note, which
other readers pass over since they do not know its owner, lists the kept bytes, so that nobody takes those zeros for memory.
docs/contract.md ("A smaller snapshot") has its layout.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import U64Array
from orcdbg.formats.elf import Note

NOTE_OWNER = "orcdbg"
NOTE_TYPE = 1
# A list of 64 MiB, in which pages of 16 GiB of memory could each have one hole; those of real snapshots have some 10^4.
MAX_RANGES = 1 << 22
_ROW_SIZE = 16


def is_trim_note(note: Note) -> bool:
    """True for the note that lists the kept bytes."""
    return (note.name, note.type) == (NOTE_OWNER, NOTE_TYPE)


def encode_trim_note(ranges: Sequence[tuple[int, int]]) -> Note:
    """The note that lists the kept bytes.

    Args:
        ranges: [start, end) in physical addresses, rising, neither overlapping nor touching.
    """
    rows = np.array(ranges, dtype="<u8")
    return Note(NOTE_OWNER, NOTE_TYPE, zlib.compress(rows.tobytes(), 9))


def parse_trim_note(note: Note, name: str) -> U64Array:
    """The kept ranges in a note: an array of shape (ranges, 2), a row [start, end) each.

    Args:
        note: one of which `is_trim_note` is true.
        name: the file's, for messages.

    Raises:
        UnsupportedFormat: damaged, or more than a snapshot can have.
    """
    unpacker = zlib.decompressobj()
    try:
        # A note of 64 KiB may unpack to 64 MiB of zeros: no more is unpacked than the longest list takes.
        data = unpacker.decompress(note.data, MAX_RANGES * _ROW_SIZE)
    except zlib.error as error:
        raise UnsupportedFormat(name, f"the list of kept memory is damaged: {error}") from error

    if not unpacker.eof or len(data) % _ROW_SIZE:
        raise UnsupportedFormat(name, "the list of kept memory is cut off or too long")

    bounds = np.frombuffer(data, dtype="<u8")
    if (bounds[1:] <= bounds[:-1]).any():
        raise UnsupportedFormat(name, "the list of kept memory is not in order")
    return bounds.reshape(-1, 2)
