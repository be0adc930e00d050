"""How does the list of modules look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.mod import Modules
from orcdbg.kernel.modules import ModuleState
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view

# What is said of modules that are not just there; the words of lsmod and /proc/modules, where they have some.
_STATES = {
    ModuleState.COMING: "loading",
    ModuleState.GOING: "unloading",
    ModuleState.UNFORMED: "not set up yet, or set up no more",
}


def _lines(result: Modules, width: Width) -> Iterator[Line]:
    taints = "  TAINTS" if result.taints is not None else ""
    files = "  FILE" if result.files is not None else ""
    yield line((f"     MODULE       NAME                         TEXT             SIZE{taints}{files}", "label"))
    for module in result.modules:
        yield line(
            f"{module.address:016x}  ",
            (f"{module.name:<22}", "symbol"),
            f"  {module.text[0]:016x}  {module.size:>10}",
            f"  {result.taints.get(module.address, '')}" if result.taints is not None else "",
            f"  {result.files.get(module.address, '-')}" if result.files is not None else "",
            (f"  ({_STATES[module.state]})" if module.state in _STATES else "", "note"),
        )
    yield from problem_lines(result.problems)


def _json(result: Modules) -> Json:
    modules = [
        {
            "module": hexadecimal(module.address),
            "name": module.name,
            "state": None if module.state is None else module.state.value,
            "size": module.size,
            "text": hexadecimal(module.text[0]),
            "text_size": module.text[1],
            "taints": result.taints.get(module.address) if result.taints is not None else None,
            "file": result.files.get(module.address) if result.files is not None else None,
            "ranges": [{"address": hexadecimal(start), "size": size} for start, size in module.ranges],
        }
        for module in result.modules
    ]
    return {"modules": modules, "problems": list(result.problems)}


view(Modules, text=_lines, json=_json)
