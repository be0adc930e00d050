"""What does a file that lzop wrote hold, as the kernel's build packs a boot image with LZO?

Mirrors lib/decompress_unlzo.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.errors import UnsupportedFormat

LZOP = b"\x89LZO\0\r\n\x1a\n"

# lzop packs 256 KiB at a time; more is no file of its making.
MAX_BLOCK = 1 << 20

# Flags of the file's header: checksums of unpacked and of packed blocks (adler32, crc32), and a filter.
_UNPACKED_CHECKSUMS = (0x1, 0x100)
_PACKED_CHECKSUMS = (0x2, 0x200)
_HAS_FILTER = 0x800
_CHECKSUM_SIZE = 4

# From this version on the header has two fields more.
_NEWER_VERSION = 0x0940


class _Cursor:
    """Takes big-endian numbers one after another."""

    def __init__(self, data: bytes, offset: int, name: str) -> None:
        self._data = data
        self._offset = offset
        self._name = name

    def take(self, size: int) -> bytes:
        """The next bytes; UnsupportedFormat where there are not so many."""
        end = self._offset + size
        if end > len(self._data):
            raise UnsupportedFormat(self._name, "compressed data are cut off")
        piece = self._data[self._offset : end]
        self._offset = end
        return piece

    def number(self, size: int) -> int:
        """The next number, of `size` bytes."""
        return int.from_bytes(self.take(size), "big")


def _skip_header(cursor: _Cursor) -> int:
    """Reads lzop's file header; its flags."""
    is_newer = cursor.number(2) >= _NEWER_VERSION

    # The library's version, the version needed to extract, the method, the level.
    cursor.take(6 if is_newer else 3)
    flags = cursor.number(4)
    if flags & _HAS_FILTER:
        cursor.take(4)

    # Mode and time of the file that was packed, its name, the header's checksum.
    cursor.take(12 if is_newer else 8)
    cursor.take(cursor.number(1))
    cursor.take(_CHECKSUM_SIZE)
    return flags


def _checksums_size(flags: int, which: tuple[int, int]) -> int:
    """Bytes of those of two checksums that a file has."""
    return sum(_CHECKSUM_SIZE for flag in which if flags & flag)


def unpacked_pieces(data: bytes, name: str) -> Iterator[bytes]:
    """What a file that lzop wrote holds, block by block; bytes behind its end are passed over.

    Args:
        data: the file, which begins with `LZOP`.
        name: for messages.

    Raises:
        UnsupportedFormat: damaged or cut off.
    """
    import lzallright  # only when there is something for it to do

    unpack = lzallright.LZOCompressor.decompress
    cursor = _Cursor(data, len(LZOP), name)
    flags = _skip_header(cursor)

    while size := cursor.number(4):
        packed_size = cursor.number(4)
        if size > MAX_BLOCK or packed_size > size:
            raise UnsupportedFormat(name, f"damaged compressed data: a block of {size} bytes from {packed_size}")

        # A block that would not get smaller is stored as it is, without a checksum of its packed form.
        is_packed = packed_size < size
        cursor.take(_checksums_size(flags, _UNPACKED_CHECKSUMS))
        if is_packed:
            cursor.take(_checksums_size(flags, _PACKED_CHECKSUMS))
        block = cursor.take(packed_size)

        try:
            # Output is at most some 255 times the input, which is at most a block.
            piece = unpack(block, size) if is_packed else block
        except (lzallright.LZOError, lzallright.InputNotConsumed) as error:
            raise UnsupportedFormat(name, f"damaged compressed data: {error}") from error
        if len(piece) != size:
            raise UnsupportedFormat(name, f"damaged compressed data: a block of {len(piece)} bytes, not {size}")
        yield piece
