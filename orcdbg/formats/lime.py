"""Where in a LiME or AVML file is which physical memory?

Both are ranges of memory, each behind a header of 32 bytes: magic, version, first and last address, padding. LiME's
ranges (version 1) are plain. AVML's (version 2) are a stream of the snappy framing format, with its length in the eight
bytes behind it; a stream is made of chunks of at most 64 KiB, which are found when somebody asks for them.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, check_bounds

LIME, AVML = b"EMiL", b"AVML"
MAX_RANGES = 1 << 20
CHUNK = 1 << 16  # unpacked
CACHED_CHUNKS, CACHED_RANGES = 64, 16
_HEADER = struct.Struct("<4sIQQQ")
_PACKED, _PLAIN, _STREAM = 0, 1, 0xFF
_STREAM_NAME = b"sNaPpY"


class Range(NamedTuple):
    """Physical [start, end), its bytes from `offset` on in the file, where they take `size` bytes."""

    start: int
    end: int
    offset: int
    size: int
    is_packed: bool


def parse_ranges(source: ByteSource) -> list[Range]:
    """All ranges, in file order; the last may be longer than the file.

    Raises:
        UnsupportedFormat: a header is none, or names an impossible range.
    """
    found: list[Range] = []
    before, end_of_file = 0, source.size
    while before + _HEADER.size <= end_of_file and len(found) < MAX_RANGES:
        magic, version, start, last, _ = _HEADER.unpack(source.read_at(before, _HEADER.size))
        if (magic, version) not in ((LIME, 1), (AVML, 2)) or not start <= last < 1 << 52:
            if found and not any(source.read_at(before, _HEADER.size)):
                break  # zeros behind the last range: the file is a disk
            raise UnsupportedFormat(source.name, f"no LiME or AVML header at offset {before:#x}")
        offset = before + _HEADER.size
        if magic == LIME:
            found.append(Range(start, last + 1, offset, last + 1 - start, False))
            before = offset + found[-1].size
        else:
            size = _stream_size(source, offset, last + 1 - start)
            found.append(Range(start, last + 1, offset, size, True))
            before = offset + size + 8
    return found


class Chunk(NamedTuple):
    """One chunk of a snappy stream: where its data are in the file, and where its bytes belong in the range."""

    offset: int
    size: int
    is_packed: bool
    at: int
    length: int


def _chunk_at(source: ByteSource, offset: int, at: int) -> tuple[Chunk | None, int]:
    """The chunk there, None for one without data, and where the next one begins."""
    head = source.read_at(offset, 4)
    kind, size = head[0], int.from_bytes(head[1:], "little")
    following = offset + 4 + size
    if kind == _STREAM and source.read_at(offset + 4, min(size, 6)) == _STREAM_NAME:
        return None, following
    if kind not in (_PACKED, _PLAIN) and kind < 0x80:
        raise UnsupportedFormat(source.name, f"a snappy chunk of unknown kind {kind:#x} at offset {offset:#x}")
    if kind >= 0x80:
        return None, following
    if size < 5 or size > CHUNK + (CHUNK >> 2):
        raise UnsupportedFormat(source.name, f"a snappy chunk of {size} bytes at offset {offset:#x}")
    data_at, data_size = offset + 8, size - 4  # a checksum comes first
    length = data_size
    if kind == _PACKED:
        length = _varint(source.read_at(data_at, min(5, data_size)))
    if not 0 < length <= CHUNK:
        raise UnsupportedFormat(source.name, f"a snappy chunk of {length} bytes unpacked at offset {offset:#x}")
    return Chunk(data_at, data_size, kind == _PACKED, at, length), following


def _varint(data: bytes) -> int:
    value = 0
    for shift, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value
    return 1 << 40


def _chunks(source: ByteSource, offset: int, length: int) -> tuple[list[Chunk], int]:
    """The chunks of a stream that holds `length` bytes, and where it ends."""
    found: list[Chunk] = []
    at = empty = 0
    while at < length:
        chunk, offset = _chunk_at(source, offset, at)
        empty += chunk is None
        if empty > 16:
            raise UnsupportedFormat(source.name, f"a snappy stream of chunks without data at offset {offset:#x}")
        if chunk is not None:
            found.append(chunk)
            at += chunk.length
    return found, offset


def _stream_size(source: ByteSource, offset: int, length: int) -> int:
    """How many bytes a range's stream takes."""
    _, end = _chunks(source, offset, length)
    return end - offset


class UnpackedRange:
    """A packed range as a file of its own: a ByteSource. Chunks are unpacked when they are read."""

    def __init__(self, source: ByteSource, place: Range) -> None:
        self.name = source.name
        self._source = source
        self._place = place
        self._unpacked = functools.lru_cache(CACHED_CHUNKS)(self._unpack)
        self._chunks = functools.lru_cache(1)(self._find_chunks)

        self.size = place.end - place.start
        # `parse_ranges` has read the header of each chunk, so only the data of the last can be beyond the file's end.
        if place.offset + place.size > source.size:
            self.size = self._chunks()[-1].at

    def _find_chunks(self) -> list[Chunk]:
        return _chunks(self._source, self._place.offset, self._place.end - self._place.start)[0]

    def _unpack(self, number: int) -> bytes:
        import cramjam  # only when there is something to unpack

        chunk = self._chunks()[number]
        data = self._source.read_at(chunk.offset, chunk.size)
        if not chunk.is_packed:
            return data
        out = bytearray(chunk.length)
        try:
            count = cramjam.snappy.decompress_raw_into(data, out)
        except cramjam.DecompressionError as error:
            raise UnsupportedFormat(self.name, f"damaged snappy data at offset {chunk.offset:#x}: {error}") from error
        if count != chunk.length:
            raise UnsupportedFormat(self.name, f"a snappy chunk of {count} bytes where {chunk.length} were said to be")
        return bytes(out)

    def _number(self, offset: int) -> int:
        """The chunk that holds an offset: all but the last are of one size, in files that were not written by hand."""
        chunks = self._chunks()
        guess = min(offset // chunks[0].length, len(chunks) - 1)
        while chunks[guess].at > offset:
            guess -= 1
        while offset >= chunks[guess].at + chunks[guess].length:
            guess += 1
        return guess

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the range; UnsupportedFormat where they do not unpack."""
        check_bounds(self, offset, size)
        out = []
        while size:
            number = self._number(offset)
            inside = offset - self._chunks()[number].at
            piece = self._unpacked(number)[inside : inside + size]
            out.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(out)
