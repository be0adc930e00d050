"""How does a command write a file, so that no file that is read is lost and none is left half-written?

Every file that orcdbg writes goes through `replacing` or `open_output`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from orcdbg.base.errors import UsageError
from orcdbg.base.inputs import remembered

_DESCRIPTORS = "/proc/self/fd"
_MEANWHILE = ".orcdbg-"  # how the name of a file begins until it is whole; short, since a name's length has a limit
# What a file system answers that has no O_TMPFILE; a kernel without it takes the folder for what is to be written.
_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)

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
    try:
        if not _can_be_replaced(path, inputs):
            with open_output(path, inputs) as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        with _new_file(target.parent) as new:
            yield new.file
            new.file.flush()
            # Meanwhile the path may have come to lead to another file, and another file may have been read.
            refuse_inputs(str(target), inputs)
            new.move_to(target)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def refuse_outputs(path: str, inputs: Iterable[str] = ()) -> None:
    """Tries, before long work, whether its result can be written; `inputs` as for `replacing`.

    Raises:
        UsageError: it cannot be written, or is one of the files that are read.
    """
    try:
        if _can_be_replaced(path, inputs):
            with _new_file(Path(os.path.realpath(path)).parent):
                pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _can_be_replaced(path: str, inputs: Iterable[str] = ()) -> bool:
    """Whether a new file would take the place of `path`; False of a device or a pipe, which are written themselves.

    Raises:
        UsageError: it names no file, or one of those that are read.
        OSError: there can be no such file.
    """
    if not path:
        raise UsageError("an empty name is no file's", "name a file to write")
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  pathlib takes a folder's slash off
    except FileNotFoundError:
        mode = None
    if path.endswith("/") or (mode is not None and stat.S_ISDIR(mode)):
        raise UsageError(f"{path}: is a folder's name", "name a file in it")
    if mode is not None and not stat.S_ISREG(mode):
        return False
    refuse_inputs(path, inputs)
    return True


class _NewFile:
    """A file in a folder that nobody sees under its own name yet.

    Args:
        file: open to be written.
        name: its name meanwhile; None while it has none at all.
        folder: where it is.
    """

    def __init__(self, file: IO[bytes], name: Path | None, folder: Path) -> None:
        self.file = file
        self.name = name
        self._folder = folder

    def move_to(self, target: Path) -> None:
        """Gives it the name `target`, in the same folder, whatever has that name."""
        if self.name is None:
            name = self._folder / f"{_MEANWHILE}{secrets.token_hex(8)}"
            # Only with a folder's descriptor does Python follow the link, which leads to the file without a name.
            os.link(f"{_DESCRIPTORS}/{self.file.fileno()}", name, src_dir_fd=self.file.fileno(), follow_symlinks=True)
            self.name = name
        self.name.replace(target)
        self.name = None


@contextlib.contextmanager
def _new_file(folder: Path) -> Iterator[_NewFile]:
    """A new file, of which nothing is left unless it is given a name.

    It has none where the file system knows such files: then nothing is left of it whatever ends this process.

    Raises:
        OSError: the folder cannot be written.
    """
    nameless = _open_nameless(folder)
    if nameless is not None:
        new = _NewFile(nameless, None, folder)
    else:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_MEANWHILE)
        new = _NewFile(os.fdopen(descriptor, "w+b"), Path(name), folder)
    try:
        with new.file:
            yield new
    finally:
        if new.name is not None:
            new.name.unlink(missing_ok=True)


def _open_nameless(folder: Path) -> IO[bytes] | None:
    """A file without a name; None where there is none to be had."""
    if not os.path.isdir(_DESCRIPTORS):  # noqa: PTH112  no /proc: it could not be given a name
        return None
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")
    except OSError as error:
        if error.errno in _NO_NAMELESS_FILES:
            return None
        raise


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
