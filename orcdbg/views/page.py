"""What is a line of text before anybody decides on colours, and how does it reach a terminal safely?

A line is a list of pieces, each with a style's name. Without colour it is joined as it is; with colour rich paints it.
Whatever a snapshot put into a piece, no control byte leaves this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple


class Piece(NamedTuple):
    """A stretch of a line in one style."""

    text: str
    style: str = ""


Line = list[Piece]

STYLES = {
    "mark": "bold yellow",
    "doubt": "bold red",
    "symbol": "cyan",
    "address": "",
    "slot": "bright_black",
    "rule": "green",
    "reason": "yellow",
    "header": "bold",
    "note": "bright_black",
    "changed": "yellow",
    "label": "bright_black",
}


def line(*pieces: str | tuple[str, str]) -> Line:
    """A line from plain strings and (text, style) pairs."""
    return [Piece(p) if isinstance(p, str) else Piece(*p) for p in pieces]


def fold(pieces: Line, width: int | None, indent: int) -> list[Line]:
    """A line as several that fit into `width`, broken at blanks; all but the first begin with `indent` blanks."""
    if width is None or sum(len(piece.text) for piece in pieces) <= width:
        return [pieces]
    lines: list[Line] = [[]]
    used = 0
    for text, style in pieces:
        for word in _words(text):
            if used + len(word.rstrip()) > width and used > indent and word.strip():
                lines.append([Piece(" " * indent)])
                used = indent
            lines[-1].append(Piece(word, style))
            used += len(word)
    return lines


def _words(text: str) -> list[str]:
    """The words of a text, each with the blanks that follow it."""
    return re.findall(r"\s*\S+\s*|\s+", text)


def safe(text: str) -> str:
    """`text` with every character that a terminal could act on as a backslash escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plain(lines: Iterable[Line]) -> str:
    """The lines as text, without trailing blanks."""
    return "".join("".join(safe(piece.text) for piece in line).rstrip() + "\n" for line in lines)


def paint(lines: Iterable[Line], out: IO[str], width: int | None = None) -> None:
    """Writes the lines in colour."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        file=out, force_terminal=True, markup=False, emoji=False, highlight=False, soft_wrap=True, width=width
    )
    for pieces in lines:
        text = Text(end="\n")
        for piece in pieces:
            text.append(safe(piece.text), STYLES.get(piece.style, piece.style) or None)
        text.rstrip()
        console.print(text)


def problem_lines(problems: Iterable[str]) -> Iterator[Line]:
    """What could not be read, one line each."""
    for problem in problems:
        yield line(("! ", "doubt"), problem)
