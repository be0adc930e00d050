"""How do register sets look that were found on stacks?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.saved_registers import SavedSets
from orcdbg.unwind.register_search import SavedSet
from orcdbg.views.page import Line, line
from orcdbg.views.view import Width, view

_ROWS = (
    ("rip", "rsp", "rbp", "rflags"),
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "r8", "r9"),
    ("r10", "r11", "r12", "r13"),
    ("r14", "r15", "cs", "ss"),
)


def saved_lines(result: SavedSets, width: Width) -> Iterator[Line]:
    """A heading and the registers of each; all are guesses."""
    for one in result.sets:
        yield line(("?", "doubt"), f" pt_regs {one.address:016x}  ", (_where(one, result), "note"))
        yield line(("      ", ""), (_name(one), "symbol"))
        for row in _ROWS:
            yield line("  ".join(f"{name.upper():>6}: {one.registers[name].value:016x}" for name in row))
    plural = "place looks" if len(result.sets) == 1 else "places look"
    yield line(f"{len(result.sets)} {plural} like saved registers; each may be left over from an earlier interrupt.")


def _where(one: SavedSet, result: SavedSets) -> str:
    mode = "user mode" if one.is_user else "kernel mode"
    task = result.owners.get(one.stack.task or 0)
    owner = f'of PID {task.pid} "{task.comm}"' if task else f"of CPU {one.stack.cpu}"
    return f"{mode}, {one.stack.kind.value} stack {owner}"


def _name(one: SavedSet) -> str:
    ip = one.registers["rip"].value
    if one.location is None:
        return f"{ip:#x}"
    module = f" [{one.location.module}]" if one.location.module else ""
    return f"{one.location.symbol}+{ip - one.location.start:#x}/{one.location.size:#x}{module}"


def saved_json(result: SavedSets) -> dict[str, Any]:
    """SAVED of the contract."""
    return {"saved": [_set(one, result) for one in result.sets]}


def _set(one: SavedSet, result: SavedSets) -> dict[str, Any]:
    task = result.owners.get(one.stack.task or 0)
    ip = one.registers["rip"].value
    return {
        "address": f"{one.address:#x}",
        "stack": one.stack.kind.value,
        "task": f"{one.stack.task:#x}" if one.stack.task else None,
        "pid": task.pid if task else None,
        "cpu": one.stack.cpu,
        "mode": "user" if one.is_user else "kernel",
        "ip": f"{ip:#x}",
        "symbol": one.location.symbol if one.location else None,
        "offset": ip - one.location.start if one.location else None,
        "registers": {name: f"{found.value:#x}" for name, found in one.registers.items()},
        "reliable": False,
    }


view(SavedSets, text=saved_lines, json=saved_json)
