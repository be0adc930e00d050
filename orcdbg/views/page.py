"""What is a line of text before anybody decides on colours, and how does it reach a terminal safely?

A line is a list of pieces, each with a style's name. Without colour it is joined as it is; with colour rich paints it.
Whatever a snapshot put into a piece, no control byte leaves this module.
"""

from __future__ import annotations

import functools
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


# Bidirectional classes of the Unicode standard (UAX 9): letters written from the right, numbers among them.
_FROM_THE_RIGHT = ("R", "AL", "AN")

# What a line of a table begins with, or a label: words with single blanks between them, and more behind them.
_FIRST_COLUMN = re.compile(r" {0,7}\S+(?: \S+)*? {2,}")


def line(*pieces: str | tuple[str, str]) -> Line:
    """A line from plain strings and (text, style) pairs."""
    return [Piece(p) if isinstance(p, str) else Piece(*p) for p in pieces]


def fold(pieces: Line, width: int | None, indent: int) -> list[Line]:
    """A line as several that fit into `width`, broken at blanks; all but the first begin with `indent` blanks."""
    if width is None or sum(len(piece.text) for piece in pieces) <= width:
        return [pieces]
    lines: list[Line] = [[]]
    used = 0
    for word in _words(pieces):
        text = "".join(piece.text for piece in word)
        if used + len(text.rstrip()) > width and used > indent and text.strip():
            lines.append([Piece(" " * indent)])
            used = indent
        lines[-1] += word
        used += len(text)
    return lines


def fitted(lines: Iterable[Line], width: int | None) -> Iterator[Line]:
    """Lines of which none is longer than `width` unless a word is: a terminal would break them in the middle of words.

    Views that know better where a line continues fold it themselves.
    """
    for pieces in lines:
        if width is None or sum(len(piece.text) for piece in pieces) <= width:
            yield pieces
        else:
            yield from fold(pieces, width, _continued_at("".join(piece.text for piece in pieces), width))


def _continued_at(text: str, width: int) -> int:
    """The column where a line's rest stands: under its second column, if it has one in the left half."""
    column = _FIRST_COLUMN.match(text)
    if column is not None and column.end() <= width // 2:
        return column.end()
    begin = len(text) - len(text.lstrip()) + 2
    return begin if begin <= width // 2 else 2


def _words(pieces: Line) -> Iterator[Line]:
    """The words of a line, each with the blanks that follow it; one may be of several pieces."""
    word: Line = []
    for text, style in pieces:
        for part in re.findall(r"\s+|\S+", text):
            if word and word[-1].text.isspace() and not part.isspace():
                yield word
                word = []
            word.append(Piece(part, style))
    if word:
        yield word


def safe(text: str) -> str:
    """`text` with every character that a terminal could act on, or that changes what is around it, as a backslash escape.

    A letter that is written from the right turns the numbers next to it around, and a combining mark is drawn over the
    character before it, which may be of another column.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _stays_in_place(c) else c.encode("unicode_escape").decode("ascii") for c in text)


@functools.lru_cache(maxsize=4096)
def _stays_in_place(char: str) -> bool:
    """Whether a character is drawn, alone and in its own place."""
    if char.isascii():
        return char.isprintable()

    import unicodedata  # most answers are ASCII

    return (
        char.isprintable()
        and not unicodedata.category(char).startswith("M")
        and unicodedata.bidirectional(char) not in _FROM_THE_RIGHT
    )


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
