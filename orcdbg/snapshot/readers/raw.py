"""How is memory that was only copied, with nothing in the file but its bytes, read as a stopped machine?

Nothing in such a file tells what it is, nor where its memory was. Both are told by how its name is given: `FILE@ADDRESS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from orcdbg.base.reading import ByteSource, FileSource
from orcdbg.snapshot.extents import Extent, ExtentMemory
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers.reader import SnapshotReader

_PLACED_NAME = re.compile(r"(.+)@(0[xX][0-9a-fA-F]{1,16}|\d{1,20})")


class PlacedImage(FileSource):
    """A plain image of memory: a ByteSource whose first byte has the physical address `physical`."""

    def __init__(self, path: str, physical: int) -> None:
        super().__init__(path)
        self.physical = physical


def placed_name(name: str) -> tuple[str, str] | None:
    """Path and address of a name that has the form FILE@ADDRESS; None of any other."""
    match = _PLACED_NAME.fullmatch(name)
    return None if match is None else (match[1], match[2])


def find_placed_image(name: str) -> PlacedImage | None:
    """The image that was given as FILE@ADDRESS; None for any other name, and where a file is really called so.

    Args:
        name: as the user gave it; the address is decimal, or hexadecimal after 0x.

    Raises:
        UnsupportedFormat: FILE cannot be opened.
    """
    placed = placed_name(name)
    if placed is None or os.path.lexists(name):
        return None

    path, address = placed
    return PlacedImage(path, int(address, 0))


def detect(head: bytes) -> bool:
    """Never: `find_placed_image` finds these files."""
    return False


def open_raw(parts: Sequence[ByteSource]) -> Snapshot:
    """The machine whose memory these plain images hold; one without an address begins at 0."""
    extents = []
    for part in parts:
        physical = part.physical if isinstance(part, PlacedImage) else 0
        extents.append(Extent(physical, part, 0, part.size, part.size))

    memory = ExtentMemory(extents)
    return Snapshot(
        path=parts[0].name,
        format="raw memory",
        physical=memory,
        cpus=[],
        vmcoreinfo={},
        ranges=memory.ranges,
        # No `left_out`: nothing in the file says how long it should be.
    )


def open_one(source: ByteSource) -> Snapshot:
    """The same of one image."""
    return open_raw([source])


READER = SnapshotReader("a plain image of memory", detect, open_one, open_raw)
