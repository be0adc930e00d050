"""How does memory look in gdb's formats?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from orcdbg.commands.examine import Examined, ExaminedPlace
from orcdbg.views.page import Line, line
from orcdbg.views.view import Width, hexadecimal, view

_ROW = 16  # bytes of numbers in a line
_MOST = 8  # numbers in a line


def examined_lines(result: Examined, width: Width) -> Iterator[Line]:
    """16 bytes a line, behind their address and symbol; a string a line."""
    for row in _rows(result):
        first = row[0]
        place = f"{first.address:#x}" + (f" <{_short(first.symbol)}>" if first.symbol else "")
        yield line((f"{place}:", "address"), "  ", "  ".join(each.text for each in row))


def _rows(result: Examined) -> Iterator[list[ExaminedPlace]]:
    is_long = any(len(each.text) > 2 * _ROW + 2 for each in result.places)
    in_row = 1 if not result.width or is_long else min(_ROW // result.width, _MOST)
    for _, row in groupby(enumerate(result.places), lambda pair: pair[0] // in_row):
        yield [place for _, place in row]


def _short(symbol: str) -> str:
    """A symbol and an offset, without the size that is behind the slash, as gdb writes it."""
    name, plus, rest = symbol.partition("+")
    offset, _, behind = rest.partition("/")
    module = behind.partition(" ")[2]
    return f"{name}{f'{plus}{int(offset, 16)}' if plus and int(offset, 16) else ''}{f' {module}' if module else ''}"


def examined_json(result: Examined) -> dict[str, Any]:
    """EXAMINED of the contract."""
    places = [
        {
            "address": hexadecimal(place.address),
            "symbol": place.symbol,
            "value": hexadecimal(place.number),
            "text": place.text,
        }
        for place in result.places
    ]
    return {"width": result.width or None, "places": places}


view(Examined, text=examined_lines, json=examined_json)
