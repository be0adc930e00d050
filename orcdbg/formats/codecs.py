"""How does a compressed whole file become bytes, without a small file becoming all of memory?

What is large goes through a file without a name in the folder for temporary files, so that memory stays small.
"""

from __future__ import annotations

import bz2
import lzma
import mmap
import tempfile
import zlib
from collections.abc import Iterator

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, BytesSource, MappedSource
from orcdbg.formats import lzo

MAX_OUTPUT = 2 << 30
MAX_INPUT = 1 << 30
IN_MEMORY = 96 << 20
# What is packed better than this is no kernel (those come to 3 to 10 times) but made to take time and room.
MAX_RATIO, ANY_RATIO = 64, 256 << 20
_STEP = 4 << 20
_LZ4_BLOCK = 8 << 20  # what lz4 -l, the kernel's choice, packs at a time
_ZSTD_STEP = 2 << 10  # packed: a block of 128 KiB may be four bytes, and all that is fed comes out at once

GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\0"
ZSTD = b"\x28\xb5\x2f\xfd"
BZIP2 = b"BZh"
LZMA = b"\x5d\x00\x00"
LZ4 = b"\x02\x21\x4c\x18"
LZOP = lzo.LZOP[:8]
_MAGICS = (GZIP, XZ, ZSTD, BZIP2, LZMA, LZ4, LZOP)


def is_compressed(head: bytes) -> bool:
    """True for a file that begins like one that `decompressed` can read."""
    return head.startswith(_MAGICS)


def decompressed(source: ByteSource, limit: int = MAX_OUTPUT) -> ByteSource:
    """The contents of a file compressed with gzip, xz, zstd, bzip2, lzma, lz4 (its legacy format) or lzop.

    Bytes behind the end of the compressed data are passed over.

    Args:
        source: the file.
        limit: bytes that it may unpack to; above 256 MiB it is at most 64 times the packed size besides.

    Raises:
        UnsupportedFormat: damaged, cut off, or larger than `limit` when unpacked.
    """
    if source.size > MAX_INPUT:
        raise UnsupportedFormat(source.name, f"a compressed file of {source.size} bytes is larger than any kernel")
    data = source.read_at(0, source.size)
    try:
        return _collected(source.name, _pieces(data, source.name), min(limit, _most(len(data))))
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise UnsupportedFormat(source.name, f"damaged compressed data: {error}") from error


def unpacked_zlib(name: str, data: bytes, size: int) -> ByteSource:
    """What a section packed by zlib holds, `size` bytes as its header says; for zstd `unpacked_zstd`.

    Raises:
        UnsupportedFormat: damaged, cut off, or of another size.
    """
    return _of_size(name, _inflated(data, zlib.MAX_WBITS), size, len(data))


def unpacked_zstd(name: str, data: bytes, size: int) -> ByteSource:
    """The same for zstd."""
    return _of_size(name, _from_zstd(data), size, len(data))


def _most(packed: int) -> int:
    """How many bytes so many packed ones may hold."""
    return min(MAX_OUTPUT, max(ANY_RATIO, MAX_RATIO * packed))


def _of_size(name: str, pieces: Iterator[bytes], size: int, packed: int) -> ByteSource:
    if size > _most(packed):
        raise UnsupportedFormat(name, f"{size} bytes unpacked are more than {_most(packed) >> 20} MiB")
    try:
        found = _collected(name, pieces, size)
    except (zlib.error, OSError, ValueError, EOFError) as error:
        raise UnsupportedFormat(name, f"damaged compressed data: {error}") from error
    if found.size != size:
        raise UnsupportedFormat(name, f"unpacks to {found.size} bytes, its header says {size}")
    return found


def unpacked_head(source: ByteSource, size: int) -> bytes:
    """The first bytes of what a compressed file holds, at most `size`; fewer where they are damaged."""
    data = source.read_at(0, min(source.size, 2 * _LZ4_BLOCK))
    head = b""
    try:
        for piece in _pieces(data, source.name):
            head += piece[:size]
            if len(head) >= size:
                break
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, UnsupportedFormat):
        return head[:size]  # who unpacks all of it says what is wrong
    return head[:size]


def _pieces(data: bytes, name: str) -> Iterator[bytes]:
    if data.startswith(GZIP):
        return _inflated(data)
    if data.startswith(ZSTD):
        return _from_zstd(data)
    if data.startswith(LZ4):
        return _from_lz4(data)
    if data.startswith(lzo.LZOP):
        return lzo.unpacked_pieces(data, name)
    if data.startswith(BZIP2):
        return _fed(bz2.BZ2Decompressor(), data)
    return _fed(lzma.LZMADecompressor(memlimit=512 << 20), data)


def _collected(name: str, pieces: Iterator[bytes], limit: int) -> ByteSource:
    """All pieces: in memory while they are few, else in a file without a name."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise UnsupportedFormat(name, f"compressed data are larger than {limit >> 20} MiB unpacked")
        held.append(piece)
        if size > IN_MEMORY:
            return _spooled(name, held, pieces, limit)
    return BytesSource(name, b"".join(held))


def _spooled(name: str, held: list[bytes], pieces: Iterator[bytes], limit: int) -> ByteSource:
    with tempfile.TemporaryFile() as file:
        size = 0
        while held:
            size += file.write(held.pop(0))
        for piece in pieces:
            size += file.write(piece)
            if size > limit:
                raise UnsupportedFormat(name, f"compressed data are larger than {limit >> 20} MiB unpacked")
        file.flush()
        return MappedSource(name, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _inflated(data: bytes, form: int = 31) -> Iterator[bytes]:
    inflate, view = zlib.decompressobj(wbits=form), data
    while not inflate.eof:
        piece = inflate.decompress(view, _STEP)
        view = inflate.unconsumed_tail
        if not piece and not view and not inflate.eof:
            raise EOFError("the data are cut off")
        yield piece


def _fed(decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes) -> Iterator[bytes]:
    piece = decompressor.decompress(data, _STEP)
    yield piece
    while not decompressor.eof:
        piece = decompressor.decompress(b"", _STEP)
        if not piece and decompressor.needs_input:
            raise EOFError("the data are cut off")
        yield piece


def _from_zstd(data: bytes) -> Iterator[bytes]:
    import zstandard  # only when there is something for it to do

    # The kernel asks zstd for windows of up to 128 MB.
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    try:
        for at in range(0, len(data), _ZSTD_STEP):
            yield unpacker.decompress(data[at : at + _ZSTD_STEP])
            if unpacker.eof:
                return
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    raise EOFError("the data are cut off")


def _from_lz4(data: bytes) -> Iterator[bytes]:
    """Blocks with their packed sizes in front, until the data end, or what follows cannot be a block."""
    import cramjam

    at, block = len(LZ4), bytearray(_LZ4_BLOCK)
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if data[at - 4 : at] == LZ4:
            continue
        if size == 0 or at + size > len(data):
            if len(data) - at > 4:
                raise EOFError("the data are cut off")
            return  # the size of the whole, which the kernel's build writes behind the data
        try:
            used = cramjam.lz4.decompress_block_into(data[at : at + size], block)
        except cramjam.DecompressionError as error:
            raise ValueError(str(error)) from error
        yield bytes(memoryview(block)[:used])
        at += size
