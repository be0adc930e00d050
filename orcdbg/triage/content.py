"""Do two files hold the same bytes? A hash of some blocks says that they may; only a comparison of all says that they do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import FileSource
from orcdbg.triage.records import FileState

# 4 MiB of a large file: some milliseconds. A dump's headers, and the log of some kernels, are at its begin.
_END = 1 << 20
_BLOCK = 1 << 16
_BLOCKS = 32
_WHOLE = 2 * _END + _BLOCKS * _BLOCK
_DIGEST = 16
_STEP = 1 << 22


def file_state(path: str) -> FileState:
    """A file as it is now.

    Raises:
        UnsupportedFormat: it cannot be read, or is no regular file.
    """
    source = FileSource(path)
    if not source.is_regular:
        raise UnsupportedFormat(path, "not a regular file")
    modified = _modified(path)
    taken = hashlib.blake2b(str(source.size).encode(), digest_size=_DIGEST)
    for offset, size in _blocks(source.size):
        taken.update(source.read_at(offset, size))
    return FileState(source.size, modified, taken.hexdigest())


def _modified(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError as error:
        raise UnsupportedFormat(path, f"cannot be opened: {error.strerror}") from error


def _blocks(size: int) -> list[tuple[int, int]]:
    """Offsets and sizes of what is hashed: all of a small file."""
    if size <= _WHOLE:
        return [(0, size)]
    step = (size - 2 * _END - _BLOCK) // (_BLOCKS - 1)
    between = [(_END + number * step, _BLOCK) for number in range(_BLOCKS)]
    return [(0, _END), *between, (size - _END, _END)]


def is_unchanged(path: str, state: FileState) -> bool:
    """Whether a file seems to be as it was: size and time of its last change are the same."""
    try:
        info = Path(path).stat()
    except OSError:
        return False
    return (info.st_size, info.st_mtime_ns) == (state.size, state.modified)


def is_same(path: str, other: str) -> bool:
    """Whether two files hold the same bytes.

    Raises:
        UnsupportedFormat: one of them cannot be read.
    """
    first, second = FileSource(path), FileSource(other)
    if first.size != second.size:
        return False
    if os.path.samefile(path, other):  # noqa: PTH121  two names of one file
        return True
    for offset in range(0, first.size, _STEP):
        size = min(_STEP, first.size - offset)
        if first.read_at(offset, size) != second.read_at(offset, size):
            return False
    return True
