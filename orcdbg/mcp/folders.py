"""Which files may be opened for somebody who only sends words? Those below the folders that the user named at the start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from orcdbg.base.errors import UsageError
from orcdbg.snapshot.readers.raw import placed_name


class Folders:
    """The folders, with symbolic links followed.

    Args:
        names: as the user gave them.

    Raises:
        UsageError: there is none, or one is no folder.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if not names:
            raise UsageError("no folder is named, so no snapshot could be opened", "orcdbg mcp --root DIR")
        for name in names:
            if not Path(name).is_dir():
                raise UsageError(f"--root {name}: not a folder")
        self.paths = [os.path.realpath(name) for name in names]

    def file(self, name: str) -> str:
        """The real path of a file; with `@ADDRESS` behind it, if that is how a plain image of memory was named.

        Args:
            name: a path, absolute or from one of the folders on.

        Raises:
            UsageError: it leads out of the folders, also by a symbolic link, or to no regular file.
        """
        found = self._path(name)
        placed = placed_name(name) if found is None else None
        if placed is not None:
            path, address = placed
            return f"{self.file(path)}@{address}"
        if found is None or not Path(found).is_file():
            raise UsageError(f"{name}: not a file", self._hint())
        return found

    def folder(self, name: str) -> str:
        """The real path of a folder; UsageError as for `file`."""
        found = self._path(name)
        if found is None or not Path(found).is_dir():
            raise UsageError(f"{name}: not a folder", self._hint())
        return found

    def file_or_folder(self, name: str) -> str:
        """The real path of either; UsageError as for `file`."""
        found = self._path(name)
        return self.folder(name) if found is not None and Path(found).is_dir() else self.file(name)

    def holds(self, path: str) -> bool:
        """Whether a real path is that of one of the folders or below it."""
        return any(Path(path).is_relative_to(folder) for folder in self.paths)

    def _path(self, name: str) -> str | None:
        """Where a name leads to, None where nothing is there.

        What is outside is refused before it is looked at: an answer must not tell what there is.
        """
        if not name.isprintable() or not name:
            raise UsageError(f"not a path: {name!r}")

        inside = [path for folder in self.paths if self.holds(path := os.path.realpath(os.path.join(folder, name)))]  # noqa: PTH118
        if not inside:
            raise UsageError(f"{name}: not below the folders that may be read", self._hint())
        return next((path for path in inside if os.path.lexists(path)), None)

    def _hint(self) -> str:
        return "folders: " + ", ".join(self.paths)
