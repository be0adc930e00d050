"""Compressed kdumps made by code, in every version, with every packing, split and flattened."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from orcdbg.base.sizes import PAGE

ZLIB, LZO, SNAPPY, ZSTD = 1, 2, 4, 0x20
_SIZES = {1: 12, 2: 32, 3: 48, 4: 64, 5: 80, 6: 104}


def pack_zlib(page: bytes) -> bytes:
    """As makedumpfile -c, at its level."""
    return zlib.compress(page, 1)


def pack_lzo(page: bytes) -> bytes:
    """As makedumpfile -l."""
    import lzallright

    return bytes(lzallright.LZOCompressor().compress(page))


def pack_snappy(page: bytes) -> bytes:
    """As makedumpfile -p."""
    import cramjam

    return bytes(cramjam.snappy.compress_raw(page))


def pack_zstd(page: bytes) -> bytes:
    """As makedumpfile -z."""
    import zstandard

    return zstandard.ZstdCompressor(level=1).compress(page)


PACKERS: dict[int, Callable[[bytes], bytes]] = {ZLIB: pack_zlib, LZO: pack_lzo, SNAPPY: pack_snappy, ZSTD: pack_zstd}


@dataclass
class Kdump:
    """What a dump holds: pages by frame number, and everything its headers say.

    `excluded` are frames that exist and were not dumped; `part` is (first, last + 1) of one file of a split dump;
    `unfinished` are frames whose descriptor is all zeros, as in a dump that was stopped half-way.
    """

    pages: Mapping[int, bytes]
    packing: int = ZLIB
    version: int = 6
    excluded: Collection[int] = ()
    unfinished: Collection[int] = ()
    part: tuple[int, int] | None = None
    frames: int | None = None
    machine: bytes = b"x86_64"
    status: int = 0
    level: int = 0
    vmcoreinfo: bytes = b""
    notes: bytes = b""
    one_bitmap: bool = False
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)  # where each frame's data were put

    def _bitmaps(self, frames: int) -> bytes:
        size = -(-frames // 8 // PAGE) * PAGE
        exist, dumped = bytearray(size), bytearray(size)
        for frame in [*self.pages, *self.excluded]:
            exist[frame // 8] |= 1 << frame % 8
        for frame in self.pages:
            dumped[frame // 8] |= 1 << frame % 8
        return bytes(dumped if self.one_bitmap else exist + dumped)

    def _sub_header(self, frames: int, notes_at: int) -> bytes:
        start, end = self.part or (0, 0)
        info_at = notes_at + len(self.notes)
        places = [
            info_at * bool(self.vmcoreinfo),
            len(self.vmcoreinfo),
            notes_at * bool(self.notes),
            len(self.notes),
            0,
            0,
        ]
        whole = struct.pack("<Qii2Q", 0, self.level, self.part is not None, start, end)
        whole += struct.pack("<9Q", *places, start, end, frames)
        return whole[: _SIZES[self.version]].ljust(PAGE, b"\0")

    def encode(self) -> bytes:
        """The file."""
        frames = self.frames or max([*self.pages, *self.excluded, 0]) + 1
        bitmaps = self._bitmaps(frames)
        inside = self.part or (0, frames)
        dumped = [frame for frame in sorted(self.pages) if inside[0] <= frame < inside[1]]
        at = 2 * PAGE + len(bitmaps)
        notes_at = at + 24 * len(dumped)
        data = bytearray(self.notes + self.vmcoreinfo)
        descriptors = bytearray()
        for frame in dumped:
            packed = PACKERS[self.packing](self.pages[frame]) if self.packing else self.pages[frame]
            flags = self.packing
            if len(packed) >= PAGE:
                packed, flags = self.pages[frame], 0
            place = notes_at + len(data), len(packed)
            if frame in self.unfinished:
                descriptors += bytes(24)
                continue
            descriptors += struct.pack("<QIIQ", *place, flags, 0)
            self.positions[frame] = place
            data += packed
        names = (b"Linux", b"(none)", b"6.1.0", b"#1 SMP", self.machine) if self.machine else ()  # QEMU names nothing
        header = struct.pack("<8si", b"KDUMP   ", self.version) + b"".join(name.ljust(65, b"\0") for name in names)
        header = header.ljust(424, b"\0")
        header += struct.pack("<IiiII", self.status, PAGE, 1, len(bitmaps) // PAGE, min(frames, (1 << 32) - 1))
        return header.ljust(PAGE, b"\0") + self._sub_header(frames, notes_at) + bitmaps + bytes(descriptors + data)


def flattened(data: bytes, order: Callable[[list[int]], None] = lambda _: None, block: int = 5000) -> bytes:
    """`data` as a flattened stream of blocks, put in another order by `order`."""
    starts = list(range(0, len(data), block))
    order(starts)
    out = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(PAGE, b"\0")
    for start in starts:
        piece = data[start : start + block]
        out += struct.pack(">qq", start, len(piece)) + piece
    return out + struct.pack(">qq", -1, -1)
