"""What do the headers of a compressed kdump say?

Mirrors makedumpfile's diskdump_mod.h: struct disk_dump_header, struct kdump_sub_header, struct page_desc. A file is made of
blocks of a page: the header, the sub-header with the notes behind it, two bitmaps of page frames (which exist, and which were
dumped), a descriptor for each dumped page in order of frame number, and the data of the pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.base.sizes import PAGE

MAGIC = b"KDUMP   "

# A bit of `status`: DUMP_DH_COMPRESSED_INCOMPLETE.
INCOMPLETE = 8

# 256 TiB, more than x86-64 machines have. Counting the bits of as many takes seconds.
MAX_FRAMES = 1 << 36
MAX_VMCOREINFO = 1 << 20

# The sub-header takes one block, or some more with its notes; a dump of 2^16 blocks would have 256 MiB of them.
MAX_SUB_BLOCKS = 1 << 16

# struct disk_dump_header up to max_mapnr: signature, header_version, the six strings of struct new_utsname (only `machine` is
# read), padding, timestamp, status, block_size, sub_hdr_size, bitmap_blocks, max_mapnr.
_HEADER = struct.Struct("<8si65x65x65x65x65s65x6x16xIiiII")

# struct kdump_sub_header: phys_base, dump_level, split, start_pfn, end_pfn; offset and size of vmcoreinfo, of the notes, of
# the erase information; then start_pfn, end_pfn and max_mapnr again, with 64 bits.
_SUB_HEADER = struct.Struct("<Qii14Q")

# How many bytes of it each version of the header has. Version 6 came with the 64-bit numbers at the end.
_SUB_HEADER_SIZES = {1: 12, 2: 32, 3: 48, 4: 64, 5: 80, 6: 104}
_FIRST_WITH_64_BIT_FRAMES = 6

# struct page_desc.
_DESCRIPTOR = struct.Struct("<QIIQ")
DESCRIPTOR_SIZE = _DESCRIPTOR.size

# As uname calls the other machines that kdump is for.
_OTHER_MACHINES = (
    *(
        b"aarch64",
        b"arm",
        b"i386",
        b"i486",
        b"i586",
        b"i686",
        b"ia64",
        b"loongarch",
        b"mips",
        b"ppc",
        b"riscv",
        b"s390",
    ),
    *(b"sparc", b"alpha", b"parisc", b"sh4"),
)


class KdumpHeader(NamedTuple):
    """What both headers say. Values that a version does not have are 0.

    Attributes:
        version: 1 to 6.
        status: bits, of which `INCOMPLETE` is used.
        dump_level: which pages makedumpfile was told to leave out (-d).
        is_split: whether the file is a part of a dump.
        start_frame: number of the first page frame that this part is for.
        end_frame: of the first behind them.
        frames: how many page frames the whole machine has; bits in each bitmap.
        vmcoreinfo: offset and size in bytes of the VMCOREINFO in the file.
        notes: offset and size of the ELF notes.
        erased: offset and size of what says which data makedumpfile erased.
        bitmap: offset of the first bitmap.
        bitmap_size: bytes of all bitmaps together.
    """

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
        size_of_one = -(-self.frames // 8 // PAGE) * PAGE
        return self.bitmap_size >= 2 * size_of_one

    @property
    def dumped_bitmap(self) -> int:
        """Offset of the bitmap of dumped frames."""
        if not self.has_two_bitmaps:
            return self.bitmap
        return self.bitmap + self.bitmap_size // 2

    @property
    def descriptors(self) -> int:
        """Offset of the first page descriptor."""
        return self.bitmap + self.bitmap_size


class PageDescriptor(NamedTuple):
    """Where the data of one page are.

    Attributes:
        offset: of the data in the file; 0 where they were not written.
        size: of the data, in bytes.
        flags: how they are packed (DUMP_DH_COMPRESSED_*, of which `pagecodecs` knows what they mean).
        page_flags: those of the kernel's struct page; writers leave them 0.
    """

    offset: int
    size: int
    flags: int
    page_flags: int


def parse_descriptors(data: bytes) -> Iterator[PageDescriptor]:
    """The descriptors in `data`, `DESCRIPTOR_SIZE` bytes each."""
    return map(PageDescriptor._make, _DESCRIPTOR.iter_unpack(data))


def parse_kdump(source: ByteSource) -> KdumpHeader:
    """The headers of a compressed kdump.

    Args:
        source: the file, or one file of a split dump.

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

    sub_header = source.read_at(PAGE, _SUB_HEADER_SIZES[version]).ljust(_SUB_HEADER.size, b"\0")
    _, level, split, start, end, *places_and_frames = _SUB_HEADER.unpack(sub_header)
    if version >= _FIRST_WITH_64_BIT_FRAMES:
        start, end, frames = places_and_frames[6:9]
    if not 0 < frames <= MAX_FRAMES:
        raise UnsupportedFormat(name, f"a compressed kdump of {frames} page frames")

    header = KdumpHeader(
        version=version,
        status=status,
        dump_level=level,
        is_split=bool(split),
        start_frame=start,
        end_frame=end,
        frames=frames,
        vmcoreinfo=(places_and_frames[0], places_and_frames[1]),
        notes=(places_and_frames[2], places_and_frames[3]),
        erased=(places_and_frames[4], places_and_frames[5]),
        bitmap=(1 + sub_blocks) * PAGE,
        bitmap_size=bitmap_blocks * PAGE,
    )

    if header.bitmap_size * 8 < frames:
        what = f"a compressed kdump whose bitmap has {header.bitmap_size} bytes for {frames} frames"
        raise UnsupportedFormat(name, what)
    if source.size < header.descriptors:
        raise UnsupportedFormat(name, "a compressed kdump that is cut off before its page descriptors")

    # A part may be empty: makedumpfile divides the pages among as many files as it was given names.
    if header.is_split and not start <= end <= frames:
        raise UnsupportedFormat(name, f"a part of a split kdump from frame {start} to {end} of {frames}")
    return header


def _check(name: str, machine: bytes, version: int, block_size: int, sub_blocks: int, bitmap_blocks: int) -> None:
    """Raises UnsupportedFormat unless the first header is one that this module reads."""
    if version not in _SUB_HEADER_SIZES:
        raise UnsupportedFormat(name, f"a compressed kdump of version {version}; 1 to 6 are known")

    # QEMU leaves the names of the system empty, some tools write others over them, and some write them at another place:
    # only another machine's own name says that it is one.
    if machine.startswith(_OTHER_MACHINES):
        raise UnsupportedFormat(name, f"a compressed kdump of another machine: {machine.decode('ascii', 'replace')}")
    if block_size != PAGE:
        raise UnsupportedFormat(name, f"a compressed kdump with pages of {block_size} bytes; x86-64 has {PAGE}")
    if not 1 <= sub_blocks <= MAX_SUB_BLOCKS or bitmap_blocks < 1:
        raise UnsupportedFormat(name, f"a compressed kdump with {sub_blocks} sub-header and {bitmap_blocks} map blocks")
