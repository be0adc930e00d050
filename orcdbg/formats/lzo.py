"""What does a file that lzop wrote hold, as the kernel's build packs a boot image with LZO?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.errors import UnsupportedFormat

LZOP = b"\x89LZO\0\r\n\x1a\n"
MAX_BLOCK = 1 << 20  # lzop packs 256 KiB at a time
_D_CHECKSUMS, _C_CHECKSUMS = (0x1, 0x100), (0x2, 0x200)
_FILTER, _NEWER = 0x800, 0x940


class _Reader:
    """Big-endian numbers one after another."""

    def __init__(self, data: bytes, at: int, name: str) -> None:
        self.data, self.at, self.name = data, at, name

    def take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise UnsupportedFormat(self.name, "compressed data are cut off")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def _skip_header(reader: _Reader) -> int:
    """Reads lzop's file header; its flags."""
    newer = reader.number(2) >= _NEWER
    reader.take(6 if newer else 3)  # versions, method, level
    flags = reader.number(4)
    reader.take((4 if flags & _FILTER else 0) + (12 if newer else 8))  # filter, mode, times
    reader.take(reader.number(1))  # name
    reader.take(4)
    return flags


def unpacked_pieces(data: bytes, name: str) -> Iterator[bytes]:
    """What a file that lzop wrote holds, block by block; bytes behind its end are passed over.

    Raises:
        UnsupportedFormat: damaged or cut off.
    """
    import lzallright  # only when there is something for it to do

    unpack = lzallright.LZOCompressor.decompress
    reader = _Reader(data, len(LZOP), name)
    flags = _skip_header(reader)
    while size := reader.number(4):
        packed = reader.number(4)
        if size > MAX_BLOCK or packed > size:
            raise UnsupportedFormat(name, f"damaged compressed data: a block of {size} bytes from {packed}")
        reader.take(4 * sum(bool(flags & one) for one in _D_CHECKSUMS))
        if packed < size:
            reader.take(4 * sum(bool(flags & one) for one in _C_CHECKSUMS))
        block = reader.take(packed)
        try:
            # Output is at most some 255 times the input, which is at most a block.
            piece = unpack(block, size) if packed < size else block
        except (lzallright.LZOError, lzallright.InputNotConsumed) as error:
            raise UnsupportedFormat(name, f"damaged compressed data: {error}") from error
        if len(piece) != size:
            raise UnsupportedFormat(name, f"damaged compressed data: a block of {len(piece)} bytes, not {size}")
        yield piece
