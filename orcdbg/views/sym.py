"""How do symbols look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.sym import SymbolLine, Symbols
from orcdbg.views.lines import place
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Symbols, width: Width) -> Iterator[Line]:
    for found in result.symbols:
        offset = f"+{found.offset:#x}" if found.offset else ""
        module = f" [{found.module}]" if found.module else ""
        name = f"{found.name}{offset}/{found.size:#x}{module}"
        where = f"  {place(found.position.line)}" if found.position is not None and found.position.line else ""
        yield line(f"{found.address:016x} ({found.letter}) ", (name, "symbol"), (where, "note"))
    yield from problem_lines(result.problems)


def _json(result: Symbols) -> Json:
    def one(line: SymbolLine) -> Json:
        source = line.position.line if line.position is not None else None
        return {
            "address": hexadecimal(line.address),
            "type": line.letter,
            "name": line.name,
            "offset": line.offset,
            "size": line.size,
            "module": line.module,
            "file": source.file if source else None,
            "line": source.line if source else None,
        }

    return {"symbols": [one(line) for line in result.symbols], "problems": list(result.problems)}


view(Symbols, text=_lines, json=_json)
