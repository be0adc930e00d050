"""Boot images made by code: a setup header, a payload packed in any of the kernel's ways, a list of relocations."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Sequence

import cramjam
import lzallright
import zstandard


def _lz4(data: bytes) -> bytes:
    """lz4's legacy format: blocks of 8 MiB."""
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block = bytes(cramjam.lz4.compress_block(data[at : at + (8 << 20)], store_size=False))
        out += struct.pack("<I", len(block)) + block
    return out


def _lzo(data: bytes) -> bytes:
    """A file of lzop."""
    header = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 9, 1, 0o644, 0, 0, 0) + bytes(4)
    out = b"\x89LZO\0\r\n\x1a\n" + header
    for at in range(0, len(data), 1 << 18):
        block = data[at : at + (1 << 18)]
        packed = bytes(lzallright.LZOCompressor().compress(block))
        body = packed if len(packed) < len(block) else block
        out += struct.pack(">III", len(block), len(body), 0) + body
    return out + bytes(4)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "lz4": _lz4,
    "lzo": _lzo,
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
}


def relocation_list(wide: Sequence[int], inverse: Sequence[int] | None, narrow: Sequence[int]) -> bytes:
    """The lists as the build appends them to the vmlinux; without one of inverse relocations as since 6.15."""
    words = [0, *wide, *([] if inverse is None else [0, *inverse]), 0, *narrow]
    return struct.pack(f"<{len(words)}I", *(word & 0xFFFF_FFFF for word in words))


def bzimage(payload: bytes, packer: str, sectors: int = 3) -> bytes:
    """A boot image with this payload, and the payload's size behind it as the build writes it."""
    packed = PACKERS[packer](payload) + struct.pack("<I", len(payload))
    head = bytearray((sectors + 1) * 512 + 0x40)
    head[0x1F1] = sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 0x40, len(packed))
    return bytes(head) + packed + bytes(64)
