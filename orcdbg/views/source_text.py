"""How do lines of the source look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.source_text import SourceText
from orcdbg.views.lines import position_json, position_lines
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: SourceText, width: Width) -> Iterator[Line]:
    where = f"{result.place.file}:{result.place.line}"
    yield line((where, "header"), (f"  {result.name}" if result.name is not None else "", "symbol"))
    if result.position is not None and result.position.inlined:
        yield from position_lines(result.position, 2)

    wide = len(str(result.first + len(result.lines)))
    for number, text in enumerate(result.lines, result.first):
        arrow = ">" if number == result.place.line else " "
        yield line((arrow, "mark"), (f"{number:>{wide}}  ", "label"), text)
    yield from problem_lines(result.problems)


def _json(result: SourceText) -> Json:
    return {
        **position_json(result.position),
        "file": result.place.file,
        "line": result.place.line,
        "address": hexadecimal(result.address),
        "symbol": result.name,
        "first": result.first,
        "lines": list(result.lines),
        "problems": list(result.problems),
    }


view(SourceText, text=_lines, json=_json)
