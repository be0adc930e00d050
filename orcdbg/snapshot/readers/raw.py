"""How is memory that was only copied, with nothing but its addresses, read as a stopped machine?"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.base.reading import ByteSource
from orcdbg.formats.lime import UnpackedRange, parse_ranges
from orcdbg.snapshot.extents import Extent, ExtentMemory, cut_off_warnings
from orcdbg.snapshot.machine import Snapshot


def open_raw(files: Sequence[tuple[ByteSource, int]]) -> Snapshot:
    """Plain images of memory, each with the physical address of its first byte."""
    memory = ExtentMemory([Extent(physical, source, 0, source.size, source.size) for source, physical in files])
    return Snapshot(files[0][0].name, "raw memory", memory, [], {}, (), memory.ranges)


def open_lime(source: ByteSource) -> Snapshot:
    """The snapshot in a LiME or AVML file.

    Raises:
        UnsupportedFormat: its headers are damaged.
    """
    extents = []
    is_packed = False
    for one in parse_ranges(source):
        inner: ByteSource = UnpackedRange(source, one) if one.is_packed else source
        is_packed |= one.is_packed
        length = one.end - one.start
        extents.append(Extent(one.start, inner, 0 if one.is_packed else one.offset, length, length))
    memory = ExtentMemory(extents)
    name = "AVML" if is_packed else "LiME"
    return Snapshot(source.name, name, memory, [], {}, cut_off_warnings(source, extents), memory.ranges)
