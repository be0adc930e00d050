"""How is memory that was only copied, with nothing in the file but its bytes, read as a stopped machine?

Nothing in such a file tells what it is, nor where its memory was. Both are told by how its name is given: `FILE@ADDRESS`, or
`FILE@ADDRESS+OFFSET:SIZE` for a piece of it. A machine's memory has holes, the one below 4 GiB above all, and some tools write
what is above a hole right behind what is below it: then each side is such a piece.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, FileSource
from orcdbg.snapshot.extents import Extent, ExtentMemory
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers.reader import SnapshotReader

_NUMBER = r"0[xX][0-9a-fA-F]{1,16}|\d{1,20}"
_PLACED_NAME = re.compile(rf"(.+)@((?P<physical>{_NUMBER})(?:\+(?P<offset>{_NUMBER})(?::(?P<size>{_NUMBER}))?)?)")


class PlacedImage(FileSource):
    """A plain image of memory, or a piece of it.

    Args:
        path: the file.
        physical: the physical address of the piece's first byte.
        offset: where in the file the piece begins.
        length: bytes of the piece; None for all up to the file's end. What leaves the file is as good as cut off.
    """

    def __init__(self, path: str, physical: int, offset: int = 0, length: int | None = None) -> None:
        super().__init__(path)
        self.physical = physical
        self.offset = offset
        self.length = max(self.size - offset, 0) if length is None else length


def placed_name(name: str) -> tuple[str, str] | None:
    """Path and place of a name that has the form FILE@ADDRESS or FILE@ADDRESS+OFFSET:SIZE; None of any other."""
    match = _PLACED_NAME.fullmatch(name)
    return None if match is None else (match[1], match[2])


def find_placed_image(name: str) -> PlacedImage | None:
    """The image that was given as FILE@ADDRESS, or a piece of it; None for another name, and where a file is called so.

    Args:
        name: as the user gave it; numbers are decimal, or hexadecimal after 0x.

    Raises:
        UnsupportedFormat: FILE cannot be opened, or ends before the piece.
    """
    match = _PLACED_NAME.fullmatch(name)
    if match is None or os.path.lexists(name):
        return None

    size = match["size"]
    image = PlacedImage(
        match[1], int(match["physical"], 0), int(match["offset"] or "0", 0), None if size is None else int(size, 0)
    )
    if image.offset and image.offset >= image.size:
        raise UnsupportedFormat(image.name, f"it has {image.size:#x} bytes, and the piece begins at {image.offset:#x}")
    return image


def detect(head: bytes) -> bool:
    """Never: `find_placed_image` finds these files."""
    return False


def open_raw(parts: Sequence[ByteSource]) -> Snapshot:
    """The machine whose memory these plain images hold; one without an address begins at 0."""
    extents = []
    for part in parts:
        if isinstance(part, PlacedImage):
            extents.append(Extent(part.physical, part, part.offset, part.length, part.length))
        else:
            extents.append(Extent(0, part, 0, part.size, part.size))

    memory = ExtentMemory(extents)
    return Snapshot(
        path=parts[0].name,
        format="raw memory",
        physical=memory,
        cpus=[],
        vmcoreinfo={},
        warnings=[_cut_off(extent) for extent in extents if extent.held < extent.size],
        ranges=memory.ranges,
        # No `left_out`: nothing in the file says how long it should be.
    )


def _cut_off(piece: Extent) -> str:
    lacks = piece.size - piece.held
    return f"{piece.source.name}: the piece at {piece.physical:#x} is longer than the file: {lacks} bytes are not in it"


def open_one(source: ByteSource) -> Snapshot:
    """The same of one image."""
    return open_raw([source])


READER = SnapshotReader("a plain image of memory", detect, open_one, open_raw)
