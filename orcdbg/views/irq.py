"""How do interrupts, softirqs and the interrupt descriptor table look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.intervals import number_runs
from orcdbg.commands.irq import Gates, Interrupts, Softirqs
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, view


def _interrupt_lines(result: Interrupts, width: Width) -> Iterator[Line]:
    more: tuple[str, ...] = tuple(f">CPU{cpu}" for cpu in result.cpus) if result.with_counts else ()
    more += ("AFFINITY",) if result.with_affinity else ()
    rows = []
    for one in result.interrupts:
        extra: list[str | int] = [one.counts.get(cpu, 0) for cpu in result.cpus] if result.with_counts else []
        if result.with_affinity:
            extra.append("-" if one.affinity is None else number_runs(one.affinity))
        names = ", ".join(action.name or "?" for action in one.actions) or "-"
        handlers = ", ".join(result.symbols.get(a.handler, address(a.handler)) for a in one.actions)
        rows.append((one.number, address(one.address), one.chip or "-", *extra, handlers or "-", names))
    yield from columns((">IRQ", "IRQ_DESC", "CHIP", *more, "HANDLER", "NAME"), rows)
    yield from problem_lines(result.problems)


def _interrupt_json(result: Interrupts) -> Json:
    def functions(action: object) -> Json:
        found = record(action, ("address", "handler", "thread_function"))
        return found | {"function": result.symbols.get(getattr(action, "handler", 0))}

    interrupts = [
        record(one, ("address",), actions=[functions(action) for action in one.actions]) for one in result.interrupts
    ]
    return {"interrupts": interrupts, "problems": list(result.problems)}


def _softirq_lines(result: Softirqs, width: Width) -> Iterator[Line]:
    head = (">NR", "ACTION", *(f">CPU{cpu}" for cpu in result.cpus), "PENDING", "NAME")
    rows = (
        (
            one.number,
            result.symbols.get(one.action, address(one.action)),
            *(one.counts.get(cpu, 0) for cpu in result.cpus),
            number_runs(one.pending) or "-",
            one.name,
        )
        for one in result.softirqs
    )
    yield from columns(head, rows)


def _softirq_json(result: Softirqs) -> Json:
    softirqs = [record(one, ("action",), function=result.symbols.get(one.action)) for one in result.softirqs]
    return {"softirqs": softirqs}


def _gate_lines(result: Gates, width: Width) -> Iterator[Line]:
    rows = (
        (gate.vector, address(gate.handler), gate.privilege, gate.stack or None, result.symbols.get(gate.handler))
        for gate in result.gates
    )
    yield from columns((">VECTOR", "HANDLER", ">DPL", ">IST", "FUNCTION"), rows)


def _gate_json(result: Gates) -> Json:
    return {"gates": [record(gate, ("handler",), function=result.symbols.get(gate.handler)) for gate in result.gates]}


view(Interrupts, text=_interrupt_lines, json=_interrupt_json)
view(Softirqs, text=_softirq_lines, json=_softirq_json)
view(Gates, text=_gate_lines, json=_gate_json)
