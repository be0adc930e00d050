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
from orcdbg.formats.flattened import HEADER_SIZE, MAGIC, check_header, parse_block

STANDARD_INPUT = "-"
_PIECE = 1 << 20
_KEPT_FREE = 64 << 20  # of the file system


class SpooledSource(FileSource):
    """The file that a stream was written into: a ByteSource."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._fd = os.dup(file.fileno())
        self.size = os.fstat(self._fd).st_size
        self.is_regular = True


def is_stream(name: str) -> bool:
    """True for standard input, given as `-`, and for named pipes."""
    if name == STANDARD_INPUT:
        return True
    return Path(name).is_fifo()


def _read(stream: IO[bytes], size: int) -> bytes:
    """`size` bytes, fewer only at the end."""
    out = b""
    while len(out) < size:
        piece = stream.read(size - len(out))
        if not piece:
            break
        out += piece
    return out


class _Target:
    """A nameless file, which never fills its file system."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self.file = file

    def write(self, offset: int, data: bytes) -> None:
        free = os.fstatvfs(self.file.fileno())
        if len(data) + _KEPT_FREE > free.f_bavail * free.f_frsize:
            what = f"no room for this stream in {tempfile.gettempdir()}"
            raise UnsupportedFormat(self.name, what, "write it to a file first, or set TMPDIR")
        try:
            while data:
                written = os.pwrite(self.file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        except OSError as error:
            raise UnsupportedFormat(self.name, f"cannot be kept: {error.strerror}") from error


def _copy(stream: IO[bytes], target: _Target, at: int) -> None:
    while piece := _read(stream, _PIECE):
        target.write(at, piece)
        at += len(piece)


def _rearrange(stream: IO[bytes], target: _Target) -> None:
    """Writes the blocks of a flattened stream where they belong."""
    while True:
        head = _read(stream, 16)
        if len(head) < 16:
            raise UnsupportedFormat(target.name, "the flattened stream is cut off")
        block = parse_block(head, target.name)
        if block is None:
            return
        offset, left = block
        while left:
            piece = _read(stream, min(left, _PIECE))
            if not piece:
                raise UnsupportedFormat(target.name, "the flattened stream is cut off")
            target.write(offset, piece)
            offset, left = offset + len(piece), left - len(piece)


def _fill(stream: IO[bytes], target: _Target) -> None:
    head = _read(stream, HEADER_SIZE)
    if head.startswith(MAGIC):
        check_header(head, target.name)
        _rearrange(stream, target)
    else:
        target.write(0, head)
        _copy(stream, target, len(head))


def spooled(name: str) -> SpooledSource:
    """What a pipe holds, as a file.

    Raises:
        UnsupportedFormat: it cannot be read or kept, or is a flattened stream that breaks off.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        target = _Target(name, file)
        try:
            with sys.stdin.buffer if name == STANDARD_INPUT else open(name, "rb") as stream:
                _fill(stream, target)
        except OSError as error:
            raise UnsupportedFormat(name, f"cannot be read: {error.strerror}") from error
        return SpooledSource(name, file)
