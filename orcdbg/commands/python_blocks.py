"""Which lines are one line of Python, from `py` to `end`?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

START = ("py", "python")
END = "end"


def starts_block(line: str) -> bool:
    """Whether a line begins a block of code."""
    return line.strip() in START


def ends_block(line: str) -> bool:
    """Whether a line of a block is its end."""
    return line.strip() == END


def block(lines: Iterable[str]) -> str:
    """The command line that a block's lines are: `py`, and the code."""
    return "\n".join((START[0], *lines))


class BlockReader:
    """Takes lines one after another, and gives each line to be run, a block of code as one."""

    def __init__(self) -> None:
        self._lines: list[str] | None = None

    @property
    def is_open(self) -> bool:
        """Whether further lines are code."""
        return self._lines is not None

    def cancel(self) -> None:
        """Forgets a block that has no end."""
        self._lines = None

    def take(self, line: str) -> str | None:
        """The line to run now; None where it is a part of a block that goes on."""
        if self._lines is None:
            if not starts_block(line):
                return line
            self._lines = []
            return None
        if not ends_block(line):
            self._lines.append(line.rstrip("\r\n"))
            return None
        whole, self._lines = block(self._lines), None
        return whole


def rest_of_block(lines: Iterator[str]) -> str:
    """The command line that a block is whose first line was taken; one without an end goes on to the last line."""
    reader = BlockReader()
    reader.take(START[0])
    for line in lines:
        whole = reader.take(line)
        if whole is not None:
            return whole
    return reader.take(END) or ""
