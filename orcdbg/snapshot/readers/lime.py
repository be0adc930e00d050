"""How is a memory image of LiME, or a packed one of AVML, read as a stopped machine?

Both are memory with its addresses and nothing else: no registers, no notes. The header of a range is
lime_mem_range_header of LiME's lime.h; AVML took it over, and in its own version 2 packs each range (its src/image.rs).
"""

from __future__ import annotations

from orcdbg.base.reading import ByteSource
from orcdbg.formats.lime import AVML, LIME, UnpackedRange, parse_ranges
from orcdbg.snapshot.extents import Extent, ExtentMemory, cut_off_warnings
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers.reader import SnapshotReader


def detect(head: bytes) -> bool:
    """Whether the first range's header is of one of the two."""
    return head.startswith((LIME, AVML))


def open_lime(source: ByteSource) -> Snapshot:
    """The snapshot in a LiME or AVML file.

    Raises:
        UnsupportedFormat: its headers are damaged.
    """
    ranges = parse_ranges(source)
    extents = []
    for each in ranges:
        size = each.end - each.start
        if each.is_packed:
            extents.append(Extent(each.start, UnpackedRange(source, each), 0, size, size))
        else:
            extents.append(Extent(each.start, source, each.offset, size, size))

    memory = ExtentMemory(extents)
    return Snapshot(
        path=source.name,
        format="AVML" if any(each.is_packed for each in ranges) else "LiME",
        physical=memory,
        cpus=[],
        vmcoreinfo={},
        warnings=cut_off_warnings(source, extents),
        ranges=memory.ranges,
        left_out=memory.left_out,
    )


READER = SnapshotReader("a LiME or AVML memory image", detect, open_lime)
