"""What is the text of a source file below a folder that the user names?

Debugging information names the files, and is as hostile as the rest of an image: no name leads out of the folder, by `..`,
from the root, or through symbolic links, and what is read is bounded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from orcdbg.base.errors import NotFound, UnsupportedFormat, UsageError
from orcdbg.base.folders import is_folder
from orcdbg.base.inputs import remember

# The largest of Linux are the register headers of amdgpu, of up to 20 MB.
MAX_FILE = 32 << 20
# Characters of a line; longer ones are made by programs, and nobody reads them.
MAX_LINE = 400
_TAB = 8


class SourceFolders:
    """Folders with source trees, the first of which that has a file counts.

    Args:
        folders: their paths.

    Raises:
        UsageError: one is no folder.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._roots: list[Path] = []
        for folder in folders:
            if not is_folder(folder):
                raise UsageError(f"{folder}: not a folder")
            self._roots.append(Path(folder).resolve())
        self._last: tuple[Path, Sequence[str]] | None = None

    def lines(self, name: str) -> Sequence[str]:
        """The lines of a file, with blanks for tabs, cut where they are longer than `MAX_LINE`.

        Args:
            name: its path from the top of the source tree on.

        Raises:
            NotFound: no folder has it.
            UnsupportedFormat: it is no plain file, is too large, or cannot be read.
        """
        path = self._path(name)
        if self._last is None or self._last[0] != path:
            # Not splitlines(), which ends a line at a form feed, as a compiler does not.
            texts = _read(path).decode("utf-8", "replace").removesuffix("\n").split("\n")
            self._last = path, [text.rstrip("\r").expandtabs(_TAB)[:MAX_LINE] for text in texts]
        return self._last[1]

    def _path(self, name: str) -> Path:
        wanted = PurePosixPath(name)
        if wanted.is_absolute() or ".." in wanted.parts or "\0" in name:
            raise NotFound("source file", name, "only files below --source are read, by their path from there on")
        for root in self._roots:
            try:
                path = (root / wanted).resolve(strict=True)
            except (OSError, RuntimeError):
                continue  # it is not there, or links that lead in a circle
            if path.is_relative_to(root):
                return path
        raise NotFound("source file", name, "--source DIR names the top of this kernel's source tree")


def _read(path: Path) -> bytes:
    # A pipe of that name must not block, nor a link take the place of the file that was checked.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnsupportedFormat(str(path), "not a plain file")
            remember(str(path))
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UnsupportedFormat(str(path), f"it cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise UnsupportedFormat(str(path), f"more than {MAX_FILE} bytes of source")
    return data
