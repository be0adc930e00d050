"""Where in a LiME or AVML file is which physical memory?

Both are ranges of memory, each behind a header of 32 bytes: magic, version, first and last address, padding (LiME's
lime_mem_range_header, src/lime.h; AVML took it over, src/image.rs). LiME's ranges are plain. AVML's are a stream of the
snappy framing format (google/snappy, framing_format.txt) with its length in the eight bytes behind it. A stream is made of
chunks of at most 64 KiB, which are found when somebody asks for them.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, check_bounds

LIME = b"EMiL"
AVML = b"AVML"
_LIME_VERSION = 1
_AVML_VERSION = 2

# A machine has some ten ranges; a file that claims more than this is read no further.
MAX_RANGES = 1 << 20
# x86-64 has at most 52 bits of physical address.
MAX_ADDRESS = 1 << 52

# The most that a chunk unpacks to, by the framing format.
CHUNK = 1 << 16
CACHED_CHUNKS = 64

_HEADER = struct.Struct("<4sIQQQ")
_STREAM_LENGTH_SIZE = 8

# Kinds of chunks. Those from 0x80 on may be skipped by who does not know them; the lower ones may not.
_PACKED = 0x00
_PLAIN = 0x01
_FIRST_SKIPPABLE = 0x80
_STREAM_IDENTIFIER = 0xFF
_STREAM_NAME = b"sNaPpY"
_CHUNK_HEADER_SIZE = 4
_CHECKSUM_SIZE = 4

# snappy's worst case is a little more than what it packs. More means that somebody wants room for nothing.
MAX_PACKED_CHUNK = CHUNK + (CHUNK >> 2)
# A writer puts one in front of a stream. A file of nothing else would be walked chunk by chunk to its end.
MAX_EMPTY_CHUNKS = 16


class Range(NamedTuple):
    """One range of physical memory.

    Attributes:
        start: its first physical address.
        end: the first behind it.
        offset: of its bytes in the file.
        size: how many bytes they take there; of a packed range, its stream without the length behind it.
        is_packed: whether they are a snappy stream.
    """

    start: int
    end: int
    offset: int
    size: int
    is_packed: bool


class Chunk(NamedTuple):
    """One chunk of a snappy stream.

    Attributes:
        offset: of its data in the file, behind header and checksum.
        size: of its data, in bytes.
        is_packed: whether they are packed.
        start: where its bytes belong in the range.
        length: how many bytes of the range it holds.
    """

    offset: int
    size: int
    is_packed: bool
    start: int
    length: int


def parse_ranges(source: ByteSource) -> list[Range]:
    """All ranges, in file order; the last may be longer than the file.

    Raises:
        UnsupportedFormat: a header is none, or names an impossible range.
    """
    ranges: list[Range] = []
    header_offset = 0
    while header_offset + _HEADER.size <= source.size and len(ranges) < MAX_RANGES:
        header = source.read_at(header_offset, _HEADER.size)

        # A file that was copied from a disk goes on in zeros behind the last range.
        if ranges and not any(header):
            break

        magic, version, start, last, _ = _HEADER.unpack(header)
        is_known = (magic, version) in ((LIME, _LIME_VERSION), (AVML, _AVML_VERSION))
        if not is_known or not start <= last < MAX_ADDRESS:
            raise UnsupportedFormat(source.name, f"no LiME or AVML header at offset {header_offset:#x}")

        length = last + 1 - start
        offset = header_offset + _HEADER.size
        if magic == LIME:
            ranges.append(Range(start, last + 1, offset, length, is_packed=False))
            header_offset = offset + length
        else:
            size = _stream_size(source, offset, length)
            ranges.append(Range(start, last + 1, offset, size, is_packed=True))
            header_offset = offset + size + _STREAM_LENGTH_SIZE
    return ranges


def _stream_size(source: ByteSource, offset: int, length: int) -> int:
    """How many bytes in the file the stream of a range takes, which unpacks to `length` bytes."""
    _, end = _chunks(source, offset, length)
    return end - offset


def _chunks(source: ByteSource, offset: int, length: int) -> tuple[list[Chunk], int]:
    """The chunks of the stream at an offset of the file, up to `length` unpacked bytes; and the offset of what follows."""
    chunks: list[Chunk] = []
    unpacked = 0
    empty = 0
    while unpacked < length:
        chunk, offset = _chunk_at(source, offset, unpacked)
        if chunk is not None:
            chunks.append(chunk)
            unpacked += chunk.length
            continue

        empty += 1
        if empty > MAX_EMPTY_CHUNKS:
            raise UnsupportedFormat(source.name, f"a snappy stream of chunks without data at offset {offset:#x}")
    return chunks, offset


def _chunk_at(source: ByteSource, offset: int, start: int) -> tuple[Chunk | None, int]:
    """The chunk at an offset of the file, None for one without data; and the offset of the next one.

    Args:
        source: the file.
        offset: of the chunk's header.
        start: where the chunk's bytes belong in the range.
    """
    header = source.read_at(offset, _CHUNK_HEADER_SIZE)
    kind = header[0]
    size = int.from_bytes(header[1:], "little")
    body = offset + _CHUNK_HEADER_SIZE
    following = body + size

    if kind == _STREAM_IDENTIFIER and source.read_at(body, min(size, len(_STREAM_NAME))) == _STREAM_NAME:
        return None, following
    if kind >= _FIRST_SKIPPABLE:
        return None, following
    if kind not in (_PACKED, _PLAIN):
        raise UnsupportedFormat(source.name, f"a snappy chunk of unknown kind {kind:#x} at offset {offset:#x}")

    if not _CHECKSUM_SIZE < size <= MAX_PACKED_CHUNK:
        raise UnsupportedFormat(source.name, f"a snappy chunk of {size} bytes at offset {offset:#x}")
    data_offset = body + _CHECKSUM_SIZE
    data_size = size - _CHECKSUM_SIZE

    # Packed data begin with the length of what they unpack to.
    length = data_size
    if kind == _PACKED:
        length = _varint(source.read_at(data_offset, min(5, data_size)))
    if not 0 < length <= CHUNK:
        raise UnsupportedFormat(source.name, f"a snappy chunk of {length} bytes unpacked at offset {offset:#x}")
    return Chunk(data_offset, data_size, kind == _PACKED, start, length), following


def _varint(data: bytes) -> int:
    """A number of seven bits a byte, the lowest first; one that does not end is larger than any chunk."""
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value
    return 1 << 40


class UnpackedRange:
    """A packed range as a file of its own: a ByteSource. Chunks are unpacked when they are read.

    Args:
        source: the file.
        place: the range, with `is_packed`.

    Attributes:
        name: the file's.
        size: bytes of the range; without the last chunk, where the file ends inside that chunk's data.
    """

    def __init__(self, source: ByteSource, place: Range) -> None:
        self.name = source.name
        self._source = source
        self._place = place

        # Made here and not by decorators, so that the caches go with their range. The chunks of a machine's memory are many
        # objects; a range that nobody reads never makes them.
        self._unpacked = functools.lru_cache(CACHED_CHUNKS)(self._unpack)
        self._chunks = functools.lru_cache(1)(self._find_chunks)

        self.size = place.end - place.start
        # `parse_ranges` has read the header of each chunk, so only the data of the last can be beyond the file's end.
        if place.offset + place.size > source.size:
            self.size = self._chunks()[-1].start

    def _find_chunks(self) -> list[Chunk]:
        chunks, _ = _chunks(self._source, self._place.offset, self._place.end - self._place.start)
        return chunks

    def _unpack(self, number: int) -> bytes:
        """The bytes of chunk `number`."""
        import cramjam  # only when there is something to unpack

        chunk = self._chunks()[number]
        data = self._source.read_at(chunk.offset, chunk.size)
        if not chunk.is_packed:
            return data

        unpacked = bytearray(chunk.length)
        try:
            count = cramjam.snappy.decompress_raw_into(data, unpacked)
        except cramjam.DecompressionError as error:
            raise UnsupportedFormat(self.name, f"damaged snappy data at offset {chunk.offset:#x}: {error}") from error
        if count != chunk.length:
            raise UnsupportedFormat(self.name, f"a snappy chunk of {count} bytes where {chunk.length} were said to be")
        return bytes(unpacked)

    def _number(self, offset: int) -> int:
        """The number of the chunk that holds an offset of the range."""
        chunks = self._chunks()

        # All but the last are of one size, in files that were not written by hand.
        number = min(offset // chunks[0].length, len(chunks) - 1)
        while chunks[number].start > offset:
            number -= 1
        while offset >= chunks[number].start + chunks[number].length:
            number += 1
        return number

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the range; UnsupportedFormat where they do not unpack."""
        check_bounds(self, offset, size)

        pieces = []
        while size:
            number = self._number(offset)
            inside = offset - self._chunks()[number].start
            piece = self._unpacked(number)[inside : inside + size]
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(pieces)
