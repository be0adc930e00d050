"""What do the headers of a compressed kdump say?

makedumpfile's diskdump_mod.h: struct disk_dump_header, struct kdump_sub_header, struct page_desc. In blocks of a page:
the header, the sub-header, two bitmaps of page frames (which exist; which are dumped), a descriptor for each dumped
page in order of frame number, data.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.base.sizes import PAGE

MAGIC = b"KDUMP   "
INCOMPLETE = 8
MAX_FRAMES = 1 << 36  # 256 TiB; counting the bits of as many takes seconds
MAX_NOTES = 64 << 20
DESCRIPTOR = struct.Struct("<QIIQ")  # offset, size, flags, page flags
_HEADER = struct.Struct("<8si65x65x65x65x65s65x6x16xIiiII")  # up to max_mapnr
_SUB_HEADER = struct.Struct("<Qii14Q")
_SUB_HEADER_SIZES = {1: 12, 2: 32, 3: 48, 4: 64, 5: 80, 6: 104}  # bytes that a version has


class KdumpHeader(NamedTuple):
    """Both headers. Offsets and sizes are in bytes of the file, frame numbers count pages; absent values are 0."""

    version: int
    status: int
    dump_level: int
    is_split: bool
    start_frame: int
    end_frame: int
    frames: int
    vmcoreinfo: tuple[int, int]
    notes: tuple[int, int]
    erased: tuple[int, int]
    bitmap: int
    bitmap_size: int

    @property
    def has_two_bitmaps(self) -> bool:
        """False where one bitmap says both which frames exist and which are dumped."""
        one = -(-self.frames // 8 // PAGE) * PAGE
        return self.bitmap_size >= 2 * one

    @property
    def dumped_bitmap(self) -> int:
        """Offset of the bitmap of dumped frames."""
        return self.bitmap + (self.bitmap_size // 2 if self.has_two_bitmaps else 0)

    @property
    def descriptors(self) -> int:
        """Offset of the first page descriptor."""
        return self.bitmap + self.bitmap_size


def _check(name: str, machine: bytes, version: int, block_size: int, sub_blocks: int, bitmap_blocks: int) -> None:
    if version not in range(1, 7):
        raise UnsupportedFormat(name, f"a compressed kdump of version {version}; 1 to 6 are known")
    if machine not in (b"", b"x86_64"):  # QEMU names none
        raise UnsupportedFormat(name, f"a compressed kdump of another machine: {machine.decode('ascii', 'replace')}")
    if block_size != PAGE:
        raise UnsupportedFormat(name, f"a compressed kdump with pages of {block_size} bytes; x86-64 has {PAGE}")
    if not 1 <= sub_blocks <= 1 << 16 or bitmap_blocks < 1:
        raise UnsupportedFormat(name, f"a compressed kdump with {sub_blocks} sub-header and {bitmap_blocks} map blocks")


def parse_kdump(source: ByteSource) -> KdumpHeader:
    """The headers of a compressed kdump.

    Raises:
        UnsupportedFormat: they are cut off, contradict themselves, or are not of an x86-64 machine.
    """
    name = source.name
    magic, version, machine, status, block_size, sub_blocks, bitmap_blocks, frames = _HEADER.unpack(
        source.read_at(0, _HEADER.size)
    )
    if magic != MAGIC:
        raise UnsupportedFormat(name, "not a compressed kdump")
    _check(name, machine.partition(b"\0")[0], version, block_size, sub_blocks, bitmap_blocks)
    raw = source.read_at(PAGE, _SUB_HEADER_SIZES[version]).ljust(_SUB_HEADER.size, b"\0")
    _, level, split, start, end, *rest = _SUB_HEADER.unpack(raw)
    if version >= 6:
        start, end, frames = rest[6:9]
    if not 0 < frames <= MAX_FRAMES:
        raise UnsupportedFormat(name, f"a compressed kdump of {frames} page frames")
    bitmap, bitmap_size = (1 + sub_blocks) * PAGE, bitmap_blocks * PAGE
    found = KdumpHeader(
        *(version, status, level, bool(split), start, end, frames),
        *((rest[0], rest[1]), (rest[2], rest[3]), (rest[4], rest[5]), bitmap, bitmap_size),
    )
    if bitmap_size * 8 < frames:
        raise UnsupportedFormat(name, f"a compressed kdump whose bitmap has {bitmap_size} bytes for {frames} frames")
    if source.size < found.descriptors:
        raise UnsupportedFormat(name, "a compressed kdump that is cut off before its page descriptors")
    if found.is_split and not start <= end <= frames:  # a part may be empty
        raise UnsupportedFormat(name, f"a part of a split kdump from frame {start} to {end} of {frames}")
    return found
