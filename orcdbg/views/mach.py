"""How do the processors and their stacks look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.mach import Machine, MemoryMapOfMachine
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Machine, width: Width) -> Iterator[Line]:
    facts = (
        ("CPUS", len(result.cpus) or None),
        ("MEMORY SIZE", None if result.memory is None else f"{result.memory >> 20} MB"),
        ("HZ", None if result.tick is None else round(1e9 / result.tick)),
        ("PAGE SIZE", result.page_size),
        ("PAGE TABLE", f"{result.page_levels} levels"),
    )
    for label, value in facts:
        yield line((f"{label:>12}: ", "label"), "-" if value is None else str(value))
    yield from columns(
        (">CPU", "VENDOR", ">FAMILY", ">MODEL", ">STEPPING", ">MICROCODE", "STATE", "NAME"),
        (
            (
                cpu.number,
                cpu.vendor,
                cpu.family,
                cpu.model_number,
                cpu.stepping,
                f"{cpu.microcode:x}",
                "online" if cpu.is_online else "offline",
                cpu.model,
            )
            for cpu in result.cpus
        ),
    )
    rows = ((cpu, address(stack.begin), address(stack.end), stack.kind.value.upper()) for cpu, stack in result.stacks)
    yield from columns((">CPU", "STACK FROM", "TO", "KIND"), rows)
    yield from problem_lines(result.problems)


def _json(result: Machine) -> Json:
    stacks = [
        {"cpu": cpu, "kind": stack.kind.value, "begin": hexadecimal(stack.begin), "end": hexadecimal(stack.end)}
        for cpu, stack in result.stacks
    ]
    return {
        "cpus": [record(cpu, microcode=hexadecimal(cpu.microcode)) for cpu in result.cpus],
        "memory": result.memory,
        "tick": result.tick,
        "page_size": result.page_size,
        "page_levels": result.page_levels,
        "stacks": stacks,
        "problems": list(result.problems),
    }


def _range_lines(result: MemoryMapOfMachine, width: Width) -> Iterator[Line]:
    yield from columns(("FROM", "TO", "KIND"), ((f"{r.start:016x}", f"{r.end:016x}", r.kind) for r in result.ranges))


def _range_json(result: MemoryMapOfMachine) -> Json:
    ranges = [{"start": hexadecimal(r.start), "end": hexadecimal(r.end), "kind": r.kind} for r in result.ranges]
    return {"ranges": ranges}


view(Machine, text=_lines, json=_json)
view(MemoryMapOfMachine, text=_range_lines, json=_range_json)
