"""How does the list of modules look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.mod import Modules
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Modules, width: Width) -> Iterator[Line]:
    yield line(("     MODULE       NAME                         TEXT             SIZE", "label"))
    for module in result.modules:
        yield line(
            f"{module.address:016x}  ", (f"{module.name:<22}", "symbol"), f"  {module.text[0]:016x}  {module.size:>10}"
        )
    yield from problem_lines(result.problems)


def _json(result: Modules) -> Json:
    modules = [
        {
            "module": hexadecimal(module.address),
            "name": module.name,
            "size": module.size,
            "text": hexadecimal(module.text[0]),
            "text_size": module.text[1],
            "ranges": [{"address": hexadecimal(start), "size": size} for start, size in module.ranges],
        }
        for module in result.modules
    ]
    return {"modules": modules, "problems": list(result.problems)}


view(Modules, text=_lines, json=_json)
