"""How does a compressed whole file become bytes, without a small file becoming all of memory?

What is large goes through a file without a name in the folder for temporary files, so that memory stays small. The formats
are those of scripts/Makefile.lib of the kernel, which packs boot images with them, and gzip and the like around snapshots.
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

# A packed file is read whole, so its own size is bounded too.
MAX_INPUT = 1 << 30
MAX_OUTPUT = 2 << 30
# Up to here what comes out is held in memory, above it goes through a file.
IN_MEMORY = 96 << 20

# What is packed better than 64 times is no kernel (those come to 3 to 10 times) but made to take time and room. Below 256 MiB
# it can do no harm, whatever the ratio.
MAX_RATIO = 64
ANY_RATIO = 256 << 20

# How much comes out of zlib, bz2 and lzma at a time.
_STEP = 4 << 20
# How much lz4 -l, the kernel's choice, packs at a time.
_LZ4_BLOCK = 8 << 20
# How much goes into zstd at a time: a block of 128 KiB may be packed into four bytes, and all of what is fed comes out at once.
_ZSTD_STEP = 2 << 10
# The kernel asks zstd for windows of up to 128 MB.
_ZSTD_WINDOW = 1 << 27
# xz -9 takes 64 MiB to unpack; a header may ask for 4 GiB.
_LZMA_MEMORY = 512 << 20

# zlib's number for "with a gzip header, and the largest window".
_GZIP_FORM = 16 + zlib.MAX_WBITS

GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\0"
ZSTD = b"\x28\xb5\x2f\xfd"
BZIP2 = b"BZh"
LZMA = b"\x5d\x00\x00"
LZ4 = b"\x02\x21\x4c\x18"
LZOP = lzo.LZOP[:8]
_MAGICS = (GZIP, XZ, ZSTD, BZIP2, LZMA, LZ4, LZOP)

# What the libraries raise for data that are damaged or cut off; those of zstd and lz4 become a ValueError below.
_DAMAGE = (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError)


def is_compressed(head: bytes) -> bool:
    """True for a file that begins like one that `decompressed` can read.

    Args:
        head: its first bytes, eight or more; of a shorter file, all.
    """
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
    except _DAMAGE as error:
        raise UnsupportedFormat(source.name, f"damaged compressed data: {error}") from error


def unpacked_head(source: ByteSource, size: int) -> bytes:
    """The first bytes of what a compressed file holds, at most `size`; fewer where they are damaged.

    Nothing is raised: who unpacks all of the file says what is wrong with it.
    """
    # The first block of lz4 may be as long as this, and comes out as a whole.
    data = source.read_at(0, min(source.size, 2 * _LZ4_BLOCK))

    head = b""
    try:
        for piece in _pieces(data, source.name):
            head += piece[:size]
            if len(head) >= size:
                break
    except (*_DAMAGE, UnsupportedFormat):
        return head[:size]
    return head[:size]


def unpacked_zlib(name: str, data: bytes, size: int) -> ByteSource:
    """What a section packed by zlib holds (ELFCOMPRESS_ZLIB).

    Args:
        name: the section, for messages.
        data: the packed bytes.
        size: how many bytes they unpack to, as the section's header says.

    Raises:
        UnsupportedFormat: damaged, cut off, or of another size.
    """
    return _of_size(name, _inflated(data, zlib.MAX_WBITS), size, len(data))


def unpacked_zstd(name: str, data: bytes, size: int) -> ByteSource:
    """What a section packed by zstd holds (ELFCOMPRESS_ZSTD); arguments and errors as for `unpacked_zlib`."""
    return _of_size(name, _from_zstd(data), size, len(data))


def _of_size(name: str, pieces: Iterator[bytes], size: int, packed: int) -> ByteSource:
    """All pieces, which must come to `size` bytes.

    Args:
        name: what they are of, for messages.
        pieces: what unpacks.
        size: bytes that they must come to.
        packed: bytes that they were packed into.
    """
    if size > _most(packed):
        raise UnsupportedFormat(name, f"{size} bytes unpacked are more than {_most(packed) >> 20} MiB")

    try:
        unpacked = _collected(name, pieces, size)
    except _DAMAGE as error:
        raise UnsupportedFormat(name, f"damaged compressed data: {error}") from error
    if unpacked.size != size:
        raise UnsupportedFormat(name, f"unpacks to {unpacked.size} bytes, its header says {size}")
    return unpacked


def _most(packed: int) -> int:
    """How many bytes so many packed ones may hold."""
    return min(MAX_OUTPUT, max(ANY_RATIO, MAX_RATIO * packed))


# Collecting


def _collected(name: str, pieces: Iterator[bytes], limit: int) -> ByteSource:
    """All pieces: in memory while they are few, else in a file without a name."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _too_large(name, limit)
        held.append(piece)
        if size > IN_MEMORY:
            return _spooled(name, held, pieces, limit)
    return BytesSource(name, b"".join(held))


def _spooled(name: str, held: list[bytes], pieces: Iterator[bytes], limit: int) -> ByteSource:
    """What is held, which is given back piece by piece, and all further pieces, in a file without a name."""
    with tempfile.TemporaryFile() as file:
        size = 0
        while held:
            size += file.write(held.pop(0))

        for piece in pieces:
            size += file.write(piece)
            if size > limit:
                raise _too_large(name, limit)

        file.flush()
        return MappedSource(name, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _too_large(name: str, limit: int) -> UnsupportedFormat:
    return UnsupportedFormat(name, f"compressed data are larger than {limit >> 20} MiB unpacked")


# Unpacking, a piece at a time


def _pieces(data: bytes, name: str) -> Iterator[bytes]:
    """What a file of any of the formats unpacks to; it is told by its first bytes, which are a format's."""
    if data.startswith(GZIP):
        return _inflated(data, _GZIP_FORM)
    if data.startswith(ZSTD):
        return _from_zstd(data)
    if data.startswith(LZ4):
        return _from_lz4(data)
    if data.startswith(lzo.LZOP):
        return lzo.unpacked_pieces(data, name)
    if data.startswith(BZIP2):
        return _fed(bz2.BZ2Decompressor(), data)
    return _fed(lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), data)


def _inflated(data: bytes, form: int) -> Iterator[bytes]:
    """By zlib; `form` is its `wbits`, which says what header there is."""
    decompressor = zlib.decompressobj(wbits=form)
    rest = data
    while not decompressor.eof:
        piece = decompressor.decompress(rest, _STEP)
        rest = decompressor.unconsumed_tail
        if not piece and not rest and not decompressor.eof:
            raise EOFError("the data are cut off")
        yield piece


def _fed(decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes) -> Iterator[bytes]:
    """By bz2 or lzma, which keep what they were fed and give it out in steps."""
    yield decompressor.decompress(data, _STEP)
    while not decompressor.eof:
        piece = decompressor.decompress(b"", _STEP)
        if not piece and decompressor.needs_input:
            raise EOFError("the data are cut off")
        yield piece


def _from_zstd(data: bytes) -> Iterator[bytes]:
    """By zstd: the first frame."""
    import zstandard  # only when there is something for it to do

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    try:
        for offset in range(0, len(data), _ZSTD_STEP):
            yield decompressor.decompress(data[offset : offset + _ZSTD_STEP])
            if decompressor.eof:
                return
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    raise EOFError("the data are cut off")


def _from_lz4(data: bytes) -> Iterator[bytes]:
    """By lz4: blocks with their packed sizes in front, until the data end, or what follows cannot be a block.

    Mirrors unlz4() of lib/decompress_unlz4.c.
    """
    import cramjam  # only when there is something for it to do

    block = bytearray(_LZ4_BLOCK)
    offset = len(LZ4)
    while offset + 4 <= len(data):
        size_field = data[offset : offset + 4]
        offset += 4

        # Files that were put one behind the other.
        if size_field == LZ4:
            continue

        size = int.from_bytes(size_field, "little")
        if size == 0 or offset + size > len(data):
            if len(data) - offset > 4:
                raise EOFError("the data are cut off")
            # It is the size of the whole, which the kernel's build writes behind the data.
            return

        try:
            used = cramjam.lz4.decompress_block_into(data[offset : offset + size], block)
        except cramjam.DecompressionError as error:
            raise ValueError(str(error)) from error
        yield bytes(memoryview(block)[:used])
        offset += size
