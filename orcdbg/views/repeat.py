"""How does a command look that is repeated? Each round as the command's own answer."""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.repeat import Repeated
from orcdbg.views.page import Line, plain
from orcdbg.views.view import Json, Width, view, view_of


def _lines(result: Repeated, width: Width) -> Iterator[Line]:
    for answer in result.rounds:
        yield from view_of(answer).text(answer, width)


def _pieces(result: Repeated, width: Width) -> Iterator[str]:
    for answer in result.rounds:
        yield plain(view_of(answer).text(answer, width))


def _json(result: Repeated) -> Json:
    return {"answers": [view_of(answer).json(answer) for answer in result.rounds]}


view(Repeated, text=_lines, json=_json, text_pieces=_pieces)
