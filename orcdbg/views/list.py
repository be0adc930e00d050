"""How does a list look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.walks import WalkOutcome
from orcdbg.commands.list import ListBreak, ListNodes
from orcdbg.views.member_values import value_lines, values_json
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view

_FOUND_THERE = {
    WalkOutcome.CIRCLE: "which is on the list already",
    WalkOutcome.UNREADABLE: "which cannot be read",
    WalkOutcome.ENDED: "which ends no list that has a head",
}


def _lines(result: ListNodes, width: Width) -> Iterator[Line]:
    is_behind_break = False
    for node in result.nodes:
        if node.is_from_end and not is_behind_break:
            is_behind_break = True
            yield line(("(behind the break, from the list's end:)", "note"))
        yield line(f"{node.address:016x}")
        yield from value_lines(node.values, result.symbols, result.in_hexadecimal)
    if result.is_cut:
        yield line(("(there are more)", "note"))
    if result.broken is not None:
        yield line(("! ", "doubt"), _break_words(result.broken))
    yield from problem_lines(result.problems)


def _break_words(broken: ListBreak) -> str:
    where = "at its head" if broken.structure is None else f"at {broken.structure:016x}"
    leads = "" if broken.leads_to is None else f", whose link at {broken.link:x} leads to {broken.leads_to:#x}"
    what = _FOUND_THERE.get(broken.outcome, "")
    counted = f"{broken.from_start} nodes were reached from the beginning"
    if broken.from_end is not None:
        counted += f", {broken.from_end} more from the end"
    return f"the list breaks {where}{leads}{f', {what}' if leads and what else ''}; {counted}"


def _json(result: ListNodes) -> Json:
    nodes = [
        {"address": f"{node.address:#x}", "from_end": node.is_from_end, "values": values_json(node.values)}
        for node in result.nodes
    ]
    broken = None
    if result.broken is not None:
        broken = {
            "link": hexadecimal(result.broken.link),
            "structure": hexadecimal(result.broken.structure),
            "leads_to": hexadecimal(result.broken.leads_to),
            "found": result.broken.outcome.value,
            "from_start": result.broken.from_start,
            "from_end": result.broken.from_end,
        }
    return {"nodes": nodes, "broken": broken, "cut": result.is_cut, "problems": list(result.problems)}


view(ListNodes, text=_lines, json=_json)
