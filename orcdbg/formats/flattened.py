"""How is a file read that makedumpfile or QEMU wrote as a stream, in blocks that each say where they belong?

A flattened file is a header of 4096 bytes and blocks of a big-endian (offset, size) and data; a block with offset and size
-1 ends it (makedumpfile.h: struct makedumpfile_header, struct makedumpfile_data_header). A later block lies over earlier
ones. Only where the blocks are is kept, 40 bytes for each; writers use blocks of 16 KiB and more.
"""

from __future__ import annotations

import struct
from array import array

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.intervals import Pieces
from orcdbg.base.reading import ByteSource, check_bounds

MAGIC = b"makedumpfile\0"
HEADER_SIZE = 4096

# Of blocks without data there may be millions in a small file: 160 MiB are kept for as many as this.
MAX_BLOCKS = 1 << 22
# Where a block may end: a file of 4 PiB, more than any disk has.
MAX_SIZE = 1 << 52

# signature, type, version.
_HEADER = struct.Struct(">16sqq")
_TYPE_FLATTENED = 1
_VERSION_FLATTENED = 1

# offset, buf_size.
_BLOCK = struct.Struct(">qq")
BLOCK_HEADER_SIZE = _BLOCK.size
_END = (-1, -1)


def check_header(header: bytes, name: str) -> None:
    """Raises UnsupportedFormat unless a file begins as a flattened stream of the one known kind.

    Args:
        header: its first bytes, up to `HEADER_SIZE`.
        name: the file's, for messages.
    """
    if len(header) >= _HEADER.size:
        _, kind, version = _HEADER.unpack_from(header)
        if (kind, version) == (_TYPE_FLATTENED, _VERSION_FLATTENED):
            return
    raise UnsupportedFormat(name, "a flattened makedumpfile stream of an unknown type or version")


def parse_block(data: bytes, name: str) -> tuple[int, int] | None:
    """A block's offset in the file that is meant, and its size, in bytes; None for the mark at the end.

    Args:
        data: the block's header, `BLOCK_HEADER_SIZE` bytes.
        name: the file's, for messages.

    Raises:
        UnsupportedFormat: no file reaches where the block says it belongs.
    """
    offset, size = _BLOCK.unpack(data)
    if (offset, size) == _END:
        return None
    if offset < 0 or size < 0 or offset + size > MAX_SIZE:
        raise UnsupportedFormat(name, f"a flattened stream with a block of {size} bytes at {offset}")
    return offset, size


def check_first(start: int, name: str) -> None:
    """Raises UnsupportedFormat unless the first bytes of the file that is meant are in a block.

    Blocks come in any order, but a file of any format has something at its start, without which nothing is known of it.

    Args:
        start: where the block belongs that comes first in the file that is meant.
        name: the file's, for messages.
    """
    if start:
        raise UnsupportedFormat(name, f"a flattened stream whose first {start} bytes are in none of its blocks")


class FlattenedSource:
    """The file that a flattened one stands for: a ByteSource. What no block holds reads as zeros, as in a sparse file.

    Args:
        inner: the flattened file.

    Attributes:
        name: the file's.
        size: up to the end of the block that reaches farthest, in bytes.
        cut_off: whether the mark at the end is missing.

    Raises:
        UnsupportedFormat: the headers are damaged.
    """

    def __init__(self, inner: ByteSource) -> None:
        self.name = inner.name
        self.cut_off = True
        self._inner = inner

        # Of each block: where it belongs, and where its data are in the flattened file.
        self._starts = array("Q")
        self._data_offsets = array("Q")

        check_header(inner.read_at(0, min(inner.size, HEADER_SIZE)), inner.name)
        blocks = self._scan()
        self._pieces = Pieces(blocks)
        self.size = max((end for _, end in blocks), default=0)
        check_first(min((start for start, _ in blocks), default=0), self.name)

    def _scan(self) -> list[tuple[int, int]]:
        """[start, end) in the file that is meant, of each block in the order of the stream; only headers are read."""
        blocks: list[tuple[int, int]] = []
        header_offset = HEADER_SIZE
        while header_offset + BLOCK_HEADER_SIZE <= self._inner.size:
            block = parse_block(self._inner.read_at(header_offset, BLOCK_HEADER_SIZE), self.name)
            if block is None:
                self.cut_off = False
                break

            start, size = block
            data_offset = header_offset + BLOCK_HEADER_SIZE
            held = min(size, self._inner.size - data_offset)
            if held:
                blocks.append((start, start + held))
                self._starts.append(start)
                self._data_offsets.append(data_offset)

            if len(blocks) > MAX_BLOCKS:
                raise UnsupportedFormat(self.name, f"a flattened stream of more than {MAX_BLOCKS} blocks")
            header_offset = data_offset + size
        return blocks

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the file as it was meant; UnsupportedFormat when it ends before."""
        check_bounds(self, offset, size)

        parts = []
        while size:
            stretch = self._pieces.find(offset)
            if stretch is None:
                hole_end = self._pieces.next_start(offset) or self.size
                length = min(size, hole_end - offset)
                parts.append(bytes(length))
            else:
                length = min(size, stretch.end - offset)
                inside = offset - self._starts[stretch.piece]
                parts.append(self._inner.read_at(self._data_offsets[stretch.piece] + inside, length))
            offset += length
            size -= length
        return b"".join(parts)
