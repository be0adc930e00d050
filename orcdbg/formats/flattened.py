"""How is a file read that makedumpfile or QEMU wrote as a stream, in blocks that each say where they belong?

A flattened file is a header of 4096 bytes and blocks of a big-endian (offset, size) and data; a block with offset and
size -1 ends it (makedumpfile.h: struct makedumpfile_header, makedumpfile_data_header). A later block lies over earlier
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
MAX_BLOCKS = 1 << 22
MAX_SIZE = 1 << 52
_HEADER = struct.Struct(">16sqq")
_BLOCK = struct.Struct(">qq")
_END = (-1, -1)


def check_header(header: bytes, name: str) -> None:
    """Raises UnsupportedFormat unless `header` begins a flattened stream of the one known kind."""
    if len(header) < _HEADER.size or _HEADER.unpack_from(header)[1:] != (1, 1):
        raise UnsupportedFormat(name, "a flattened makedumpfile stream of an unknown type or version")


def parse_block(data: bytes, name: str) -> tuple[int, int] | None:
    """A block's offset and size in bytes; None for the mark at the end.

    Raises:
        UnsupportedFormat: no file reaches where the block says it belongs.
    """
    offset, size = _BLOCK.unpack(data)
    if (offset, size) == _END:
        return None
    if offset < 0 or size < 0 or offset + size > MAX_SIZE:
        raise UnsupportedFormat(name, f"a flattened stream with a block of {size} bytes at {offset}")
    return offset, size


class FlattenedSource:
    """The file that a flattened one stands for: a ByteSource. What no block holds reads as zeros, as in a sparse file.

    `cut_off` is true when the mark at the end is missing.

    Raises:
        UnsupportedFormat: the headers are damaged.
    """

    def __init__(self, inner: ByteSource) -> None:
        self.name = inner.name
        self._inner = inner
        self._starts, self._at = array("Q"), array("Q")
        check_header(inner.read_at(0, min(inner.size, HEADER_SIZE)), inner.name)
        blocks = self._scan()
        self._pieces = Pieces(blocks)
        self.size = max((end for _, end in blocks), default=0)

    def _scan(self) -> list[tuple[int, int]]:
        blocks, at, self.cut_off = [], HEADER_SIZE, True
        while at + _BLOCK.size <= self._inner.size:
            block = parse_block(self._inner.read_at(at, _BLOCK.size), self.name)
            if block is None:
                self.cut_off = False
                break
            offset, size = block
            at += _BLOCK.size
            held = min(size, self._inner.size - at)
            if held:
                blocks.append((offset, offset + held))
                self._starts.append(offset)
                self._at.append(at)
            if len(blocks) > MAX_BLOCKS:
                raise UnsupportedFormat(self.name, f"a flattened stream of more than {MAX_BLOCKS} blocks")
            at += size
        return blocks

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the file as it was meant; UnsupportedFormat when it ends before."""
        check_bounds(self, offset, size)
        out = []
        while size:
            found = self._pieces.find(offset)
            if found is None:
                length = min(size, (self._pieces.next_start(offset) or self.size) - offset)
                out.append(bytes(length))
            else:
                length = min(size, found.end - offset)
                inside = offset - self._starts[found.piece]
                out.append(self._inner.read_at(self._at[found.piece] + inside, length))
            offset, size = offset + length, size - length
        return b"".join(out)
