"""How do facts about the machine look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.sys import System
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, view


def _lines(result: System, width: Width) -> Iterator[Line]:
    for fact in result.facts:
        value = "-" if fact.value is None else str(fact.value)
        if fact.key == "memory" and isinstance(fact.value, int):
            value = f"{fact.value / (1 << 20):.0f} MB"
        why = f"  ({fact.why})" if fact.why else ""
        yield line((f"{fact.label:>12}: ", "label"), value, (why, "note"))


def _json(result: System) -> Json:
    facts = {fact.key: fact.value for fact in result.facts}
    return {"system": facts, "absent": {fact.key: fact.why for fact in result.facts if fact.why}}


view(System, text=_lines, json=_json)
