"""How is a snapshot that comes from a pipe kept, so that it can be read at any place?

As a file without a name in the folder for temporary files. A flattened stream's blocks go where they belong; holes stay
holes. Anything else is copied as it is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import IO

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import FileSource
from orcdbg.formats.flattened import BLOCK_HEADER_SIZE, HEADER_SIZE, MAGIC, check_first, check_header, parse_block

STANDARD_INPUT = "-"

# How much is copied at a time.
_PIECE = 1 << 20
# A stream without end must not fill the disk of who reads it: so many bytes of its file system stay free.
_KEPT_FREE = 64 << 20


class SpooledSource(FileSource):
    """The file that a stream was written into: a ByteSource.

    Args:
        name: what the user called the stream, for messages.
        file: where it was written; it may be closed afterwards.
    """

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._fd = os.dup(file.fileno())
        self.size = os.fstat(self._fd).st_size
        self.is_regular = True


def is_stream(name: str) -> bool:
    """True for standard input, given as `-`, and for named pipes."""
    return name == STANDARD_INPUT or Path(name).is_fifo()


def spooled(name: str) -> SpooledSource:
    """What a pipe holds, as a file.

    Args:
        name: of which `is_stream` is true.

    Raises:
        UnsupportedFormat: it cannot be read or kept, or is a flattened stream that breaks off.
    """
    from orcdbg.base.pipes import open_for_reading  # most snapshots are files

    with tempfile.TemporaryFile(buffering=0) as file:
        target = _Target(name, file)
        try:
            with sys.stdin.buffer if name == STANDARD_INPUT else open_for_reading(name) as stream:
                _fill(stream, target)
        except OSError as error:
            raise UnsupportedFormat(name, f"cannot be read: {error.strerror}") from error
        return SpooledSource(name, file)


class _Target:
    """A nameless file, which never fills its file system."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._file = file

    def write(self, offset: int, data: bytes) -> None:
        """Writes `data` at `offset`; UnsupportedFormat where there is no room."""
        file_system = os.fstatvfs(self._file.fileno())
        if len(data) + _KEPT_FREE > file_system.f_bavail * file_system.f_frsize:
            what = f"no room for this stream in {tempfile.gettempdir()}"
            raise UnsupportedFormat(self.name, what, "write it to a file first, or set TMPDIR")

        try:
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data = data[written:]
                offset += written
        except OSError as error:
            raise UnsupportedFormat(self.name, f"cannot be kept: {error.strerror}") from error


def _fill(stream: IO[bytes], target: _Target) -> None:
    """Writes a stream of either kind, told by its first bytes."""
    head = _read(stream, HEADER_SIZE)
    if head.startswith(MAGIC):
        check_header(head, target.name)
        _rearrange(stream, target)
    else:
        target.write(0, head)
        _copy(stream, target, len(head))


def _copy(stream: IO[bytes], target: _Target, offset: int) -> None:
    """Writes what is left of a stream from `offset` on."""
    while piece := _read(stream, _PIECE):
        target.write(offset, piece)
        offset += len(piece)


def _rearrange(stream: IO[bytes], target: _Target) -> None:
    """Writes the blocks of a flattened stream where they belong."""
    first: int | None = None
    while True:
        header = _read(stream, BLOCK_HEADER_SIZE)
        if len(header) < BLOCK_HEADER_SIZE:
            raise UnsupportedFormat(target.name, "the flattened stream is cut off")

        block = parse_block(header, target.name)
        if block is None:
            check_first(first or 0, target.name)
            return

        # A block may say that it is larger than memory: it goes through in pieces.
        offset, left = block
        if left:
            first = offset if first is None else min(first, offset)
        while left:
            piece = _read(stream, min(left, _PIECE))
            if not piece:
                raise UnsupportedFormat(target.name, "the flattened stream is cut off")
            target.write(offset, piece)
            offset += len(piece)
            left -= len(piece)


def _read(stream: IO[bytes], size: int) -> bytes:
    """`size` bytes, fewer only at the end; a pipe gives what it has, which may be less than was asked for."""
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            break
        data += piece
    return data
