"""How do facts about the machine look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.sys import MachineIdentity, SyscallTable, System, Taints
from orcdbg.views.columns import address, columns, duration
from orcdbg.views.page import Line, line
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: System, width: Width) -> Iterator[Line]:
    for fact in result.facts:
        value = "-" if fact.value is None else str(fact.value)
        if fact.key == "memory" and isinstance(fact.value, int):
            value = f"{fact.value / (1 << 20):.0f} MB"
        if fact.key == "uptime" and isinstance(fact.value, int):
            value = duration(fact.value)
        why = f"  ({fact.why})" if fact.why else ""
        yield line((f"{fact.label:>12}: ", "label"), value, (why, "note"))


def _json(result: System) -> Json:
    facts = {fact.key: fact.value for fact in result.facts}
    return {"system": facts, "absent": {fact.key: fact.why for fact in result.facts if fact.why}}


def _taint_lines(result: Taints, width: Width) -> Iterator[Line]:
    yield line(("TAINTED_MASK: ", "label"), f"{result.mask:x}")
    if not result.taints:
        yield line(("The kernel is not tainted", "note"))
        return
    yield from columns((">BIT", "LETTER", "MEANING"), result.taints)


def _taint_json(result: Taints) -> Json:
    taints = [{"bit": bit, "letter": letter, "meaning": meaning} for bit, letter, meaning in result.taints]
    return {"mask": hexadecimal(result.mask), "taints": taints}


def _call_lines(result: SyscallTable, width: Width) -> Iterator[Line]:
    rows = ((call.number, address(call.function), call.name, call.symbol) for call in result.calls)
    yield from columns((">NUM", "FUNCTION", "SYSTEM CALL", "SYMBOL"), rows)


def _call_json(result: SyscallTable) -> Json:
    return {"calls": [record(call, ("function",)) for call in result.calls]}


def _identity_lines(result: MachineIdentity, width: Width) -> Iterator[Line]:
    for name, text in result.strings:
        yield line((f"{name:>24}: ", "label"), text)


def _identity_json(result: MachineIdentity) -> Json:
    return {"identity": dict(result.strings)}


view(System, text=_lines, json=_json)
view(Taints, text=_taint_lines, json=_taint_json)
view(SyscallTable, text=_call_lines, json=_call_json)
view(MachineIdentity, text=_identity_lines, json=_identity_json)
