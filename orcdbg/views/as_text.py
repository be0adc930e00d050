"""How does a result look to a person?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orcdbg.base.errors import OrcdbgError, UsageError, WordPlace
from orcdbg.commands.result import Result
from orcdbg.views.page import Line, Piece, fitted, fold, plain, safe
from orcdbg.views.reasons import message_of
from orcdbg.views.view import Width, view_of

_HINT_INDENT = 6
_CARET_INDENT = 4
_CARET_COLUMNS = 160
_CUT = "..."


def lines_of(result: Result, width: Width) -> Iterable[Line]:
    """The lines of a result, fitted into `width`."""
    return fitted(view_of(result).text(result, width), width)


def failure_text(error: OrcdbgError, command: str | None = None, width: Width = None) -> str:
    """An error's line, what was typed with a caret under the part that is wrong, and the hint, where there are any."""
    where = f"{command}: " if command else ""
    lines = [safe(f"orcdbg: {where}{message_of(error)}")]
    if isinstance(error, UsageError) and error.place is not None:
        lines += _caret_lines(error.place, width or _CARET_COLUMNS)
    if error.hint:
        lines += plain(fold([Piece(f"hint: {error.hint}")], width, _HINT_INDENT)).splitlines()
    return "".join(f"{line}\n" for line in lines)


def _caret_lines(place: WordPlace, width: int) -> list[str]:
    """What was typed, or as much around the place as fits, and a caret under the place; none where all of it is wrong."""
    text, start, length = place
    if (start, length) == (0, len(text)) or "\n" in text:
        return []

    room = max(width - 2 * _CARET_INDENT - len(_CUT), 2 * _CARET_INDENT)
    first = max(start - room * 2 // 3, 0) if len(text) > room else 0
    before = (_CUT if first else "") + safe(text[first:start])
    wrong, behind = safe(text[start : start + length]), safe(text[start + length : first + room])
    more = _CUT if first + room < len(text) else ""
    indent = " " * _CARET_INDENT
    under = "^" + "~" * (max(_cells(wrong), 1) - 1)
    return [f"{indent}{before}{wrong}{behind}{more}".rstrip(), f"{indent}{' ' * _cells(before)}{under}"]


def _cells(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)

    import unicodedata  # most lines are ASCII

    return len(text) + sum(unicodedata.east_asian_width(char) in "WF" for char in text)


def text_pieces(result: Result, width: Width) -> Iterator[str]:
    """A result's text without colour, in pieces."""
    shown = view_of(result)
    if shown.text_pieces is not None:
        yield from shown.text_pieces(result, width)
    else:
        yield plain(lines_of(result, width))
