"""How does a place in the source look that was asked for?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.info import SourcePlace
from orcdbg.views.lines import position_json, position_lines
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: SourcePlace, width: Width) -> Iterator[Line]:
    yield line(f"{result.address:016x}  ", (result.name or "no symbol", "symbol"))
    yield from position_lines(result.position, 2)
    if result.position is None and not result.problems:
        yield line(("  no line known", "note"))
    yield from problem_lines(result.problems)


def _json(result: SourcePlace) -> Json:
    return {
        "address": hexadecimal(result.address),
        "symbol": result.name,
        **position_json(result.position),
        "problems": list(result.problems),
    }


view(SourcePlace, text=_lines, json=_json)
