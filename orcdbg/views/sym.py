"""How do symbols look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.sym import SymbolLine, Symbols
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Symbols, width: Width) -> Iterator[Line]:
    for found in result.symbols:
        offset = f"+{found.offset:#x}" if found.offset else ""
        module = f" [{found.module}]" if found.module else ""
        name = f"{found.name}{offset}/{found.size:#x}{module}"
        yield line(f"{found.address:016x} ({found.letter}) ", (name, "symbol"))


def _json(result: Symbols) -> Json:
    def one(line: SymbolLine) -> Json:
        return {
            "address": hexadecimal(line.address),
            "type": line.letter,
            "name": line.name,
            "offset": line.offset,
            "size": line.size,
            "module": line.module,
        }

    return {"symbols": [one(line) for line in result.symbols]}


view(Symbols, text=_lines, json=_json)
