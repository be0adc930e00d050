"""How is a replayed text that was written to a file reported?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.patch_replay import Replay
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Replay, width: Width) -> Iterator[Line]:
    yield line(f"{result.size} bytes of text from {result.address:016x} and {result.symbols} symbols in {result.path}")
    yield from problem_lines(result.problems)


def _json(result: Replay) -> Json:
    """What was written where."""
    return {
        "file": result.path,
        "address": hexadecimal(result.address),
        "size": result.size,
        "symbols": result.symbols,
        "problems": list(result.problems),
    }


view(Replay, text=_lines, json=_json)
