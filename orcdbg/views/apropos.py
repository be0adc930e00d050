"""How do the places where help has a word look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.apropos import HelpMatches
from orcdbg.views.page import Line, fold, line
from orcdbg.views.view import Json, Width, view

_WIDEST = 30  # columns of the lines that can be typed; a longer one has its summary below it


def _lines(result: HelpMatches, width: Width) -> Iterator[Line]:
    column = min(max(len(match.line) for match in result.matches), _WIDEST)
    for match in result.matches:
        if len(match.line) > column:
            yield line((match.line, "symbol"))
            yield from fold(line(" " * (column + 2), match.summary), width, column + 2)
        else:
            yield from fold(line((f"{match.line:<{column}}", "symbol"), "  ", match.summary), width, column + 2)


def _json(result: HelpMatches) -> Json:
    return {"matches": [{"line": match.line, "summary": match.summary} for match in result.matches]}


view(HelpMatches, text=_lines, json=_json)
