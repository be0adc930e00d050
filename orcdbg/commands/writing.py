"""How does a command write a file, so that no file that is read is lost and none is left half-written?"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from orcdbg.base.errors import UsageError

_DESCRIPTORS = "/proc/self/fd"


@contextlib.contextmanager
def replacing(path: str, inputs: Iterable[str] = ()) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once all is written; nothing is left of it when that fails.

    What is no regular file, such as a device or a pipe, is written itself.

    Args:
        path: where to; a symbolic link stays, and leads to the new file.
        inputs: files that must not be replaced, beside all that are open.

    Raises:
        UsageError: it cannot be written, or is one of those that are read.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        refuse_inputs(path, inputs)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
            try:
                yield file
                file.flush()
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def refuse_inputs(path: str, inputs: Iterable[str]) -> None:
    """Raises UsageError where writing `path` would replace an input; `inputs` as for `replacing`."""
    target = Path(path)
    if target.is_file() and _identity(target) in {*_opened(), *map(_identity, map(Path, inputs))}:
        raise UsageError(f"{path}: is one of the files that are read, and is not replaced", "name another file")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where it is none."""
    try:
        info = path.stat()
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino


def _opened() -> Iterator[tuple[int, int]]:
    """All files that are open: the parts of a split dump, and what was split off an image, among them."""
    try:
        descriptors = list(Path(_DESCRIPTORS).iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        found = _identity(descriptor)
        if found is not None:
            yield found
