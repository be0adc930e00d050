"""How is an answer written to the file after `>`, so that no file that is read is lost?"""

from __future__ import annotations

import io
from collections.abc import Iterable

from orcdbg.commands.writing import empty, open_unchanged, refuse_input

WORDS = (">", ">>")


class Target(io.TextIOWrapper):
    """The file that a line's answer goes into. What is in it stays until `begin`: the command may yet read that file.

    Args:
        path: the file.
        inputs: as for `orcdbg.commands.writing.replacing`.
        append: keep what is in it.

    Raises:
        UsageError: it is one of the files that are read.
        OSError: it cannot be written.
    """

    def __init__(self, path: str, inputs: Iterable[str], append: bool) -> None:
        self._file = open_unchanged(path, inputs, append=append)
        super().__init__(self._file, encoding="utf-8", line_buffering=True)
        self._path = path
        self._waits = True
        self._append = append

    def begin(self, inputs: Iterable[str]) -> None:
        """Compares the file with the inputs of now, and empties it; the second time does nothing.

        Raises:
            UsageError: the command has read it.
        """
        if not self._waits:
            return

        refuse_input(self._file, self._path, inputs)
        if not self._append:
            empty(self._file)
        self._waits = False
