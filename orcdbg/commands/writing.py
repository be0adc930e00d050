"""How does a command write a file, so that no file that is read is lost and none is left half-written?

Every file that orcdbg writes goes through `replacing` or `open_output`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from orcdbg.base.errors import UsageError
from orcdbg.base.inputs import remembered

_DESCRIPTORS = "/proc/self/fd"

Identity = tuple[int, int]  # device and inode


@contextlib.contextmanager
def replacing(path: str, inputs: Iterable[str] = ()) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once all is written; nothing is left of it when that fails.

    What is no regular file, such as a device or a pipe, is written itself.

    Args:
        path: where to; a symbolic link stays, and leads to the new file.
        inputs: files that must not be replaced, beside all that this run has read.

    Raises:
        UsageError: it cannot be written, or is one of those that are read.
    """
    inputs = list(inputs)
    target = Path(os.path.realpath(path))
    try:
        if Path(path).exists() and not Path(path).is_file():
            with open_output(path, inputs) as file:
                yield file
            return
        refuse_inputs(path, inputs)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
            try:
                yield file
                file.flush()
                # Meanwhile the path may have come to lead to another file, and another file may have been read.
                refuse_inputs(str(target), inputs)
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def open_output(path: str, inputs: Iterable[str] = (), *, append: bool = False) -> IO[bytes]:
    """The file at `path`, empty unless `append`, to be written from its start or its end; made where there is none.

    It is opened as it is, compared with the inputs, and emptied only then: whatever the path led to a moment ago, the
    file that loses its contents is the one that was compared.

    Args:
        path: where to.
        inputs: as for `replacing`.
        append: keep what is in it, and write behind that.

    Raises:
        UsageError: it is one of the files that are read.
        OSError: it cannot be written.
    """
    file = open_unchanged(path, inputs, append=append)
    try:
        if not append:
            empty(file)
    except BaseException:
        file.close()
        raise
    return file


def open_unchanged(path: str, inputs: Iterable[str] = (), *, append: bool = False) -> IO[bytes]:
    """As `open_output`, but what is in the file stays until `empty`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    file = os.fdopen(os.open(path, flags, 0o666), "ab" if append else "wb")
    try:
        refuse_input(file, path, inputs)
    except BaseException:
        file.close()
        raise
    return file


def refuse_input(file: IO[bytes], path: str, inputs: Iterable[str]) -> None:
    """Raises UsageError where an open file, that `path` led to, is an input; `inputs` as for `replacing`."""
    info = os.fstat(file.fileno())
    if stat.S_ISREG(info.st_mode):
        _refuse((info.st_dev, info.st_ino), path, inputs)


def empty(file: IO[bytes]) -> None:
    """Drops what is in an open file; a device or a pipe has nothing to drop."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        os.ftruncate(file.fileno(), 0)


def refuse_inputs(path: str, inputs: Iterable[str] = ()) -> None:
    """Raises UsageError where writing `path` would replace an input; `inputs` as for `replacing`."""
    target = _identity(path)
    if target is not None:
        _refuse(target, path, inputs)


def _refuse(target: Identity, path: str, inputs: Iterable[str]) -> None:
    if target in {*_opened(), *map(_identity, remembered()), *map(_identity, inputs)}:
        raise UsageError(f"{path}: is one of the files that are read, and is not replaced", "name another file")


def _identity(path: str) -> Identity | None:
    """Device and inode of the regular file that a path leads to; None where it leads to none."""
    try:
        info = os.stat(path)  # noqa: PTH116  the same on a thousand paths, without an object for each
    except (OSError, ValueError):
        return None
    return (info.st_dev, info.st_ino) if stat.S_ISREG(info.st_mode) else None


def _opened() -> Iterator[Identity]:
    """The files that are open to be read: the parts of a split dump, and what was split off an image, among them."""
    try:
        descriptors = os.listdir(_DESCRIPTORS)  # noqa: PTH208
    except OSError:
        return
    for number in map(int, descriptors):
        try:
            info = os.fstat(number)
            is_read = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY
        except OSError:
            continue  # that of the listing itself
        if is_read and stat.S_ISREG(info.st_mode):
            yield info.st_dev, info.st_ino
