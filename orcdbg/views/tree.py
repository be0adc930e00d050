"""How does a tree look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.tree import TreeEntries, TreeEntry
from orcdbg.subsystems.containers.xarray import is_value
from orcdbg.views.member_values import value_lines, values_json
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, view


def _position(entry: TreeEntry) -> str:
    if entry.index is None:
        return entry.position or ""
    return f"index {entry.index}" if entry.last == entry.index else f"index {entry.index:#x}-{entry.last or 0:#x}"


def _lines(result: TreeEntries, width: Width) -> Iterator[Line]:
    for entry in result.entries:
        shown = f"{entry.address:016x}"
        if entry.index is not None and is_value(entry.address):
            shown = f"value {entry.address >> 1}"
        yield line(shown, (f"  {_position(entry)}" if result.with_positions else "", "note"))
        yield from value_lines(entry.values, result.symbols, result.in_hexadecimal)
    if result.is_cut:
        yield line(("(there are more)", "note"))
    yield from problem_lines(result.problems)


def _json(result: TreeEntries) -> Json:
    entries = [
        {
            "address": f"{entry.address:#x}",
            "index": entry.index,
            "last": entry.last,
            "position": entry.position,
            "values": values_json(entry.values),
        }
        for entry in result.entries
    ]
    return {"entries": entries, "cut": result.is_cut, "problems": list(result.problems)}


view(TreeEntries, text=_lines, json=_json)
