"""How do the registers of a frame look, each with where its value was saved?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orcdbg.base.reasons import UnknownRegister
from orcdbg.commands.regs import CpuRegisters, FrameRegisters
from orcdbg.unwind.frame import Registers
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.stacks import name_of
from orcdbg.views.view import Json, Width, hexadecimal, view

_ORDER = (
    *("rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "rflags", "orig_rax", "cs", "ss"),
)


def _lines(result: FrameRegisters, width: Width) -> Iterator[Line]:
    yield line((f"registers of frame #{result.frame.index}  {name_of(result.frame)}", "header"))
    yield from _register_lines(result.registers, result.unknown)


def _register_lines(registers: Registers, unknown: Mapping[str, UnknownRegister]) -> Iterator[Line]:
    """Registers, each with where its value was found or why it is not known."""
    names = set(registers) | set(unknown)
    for name in [name for name in _ORDER if name in names] + sorted(names - set(_ORDER)):
        if name in unknown:
            yield line((f"{name:>9}  ", "label"), f"{'-':<16}  ", (f"not known: {unknown[name]}", "note"))
            continue
        yield line((f"{name:>9}  ", "label"), f"{registers[name].value:016x}  ", (registers[name].source, "note"))


def _registers_json(values: Registers) -> Json:
    """Register values by name, each with its source."""
    return {name: {"value": hexadecimal(found.value), "source": found.source} for name, found in values.items()}


def _json(result: FrameRegisters) -> Json:
    return {
        "frame": result.frame.index,
        "registers": _registers_json(result.registers),
        "unknown": {name: unknown.why for name, unknown in result.unknown.items()},
        "unknown_codes": {name: unknown.code.value for name, unknown in result.unknown.items()},
    }


_CONTROL = (
    ("cr3", "cr3"),
    ("cr4", "cr4"),
    ("idt", "idt"),
    ("gs_base", "gs base"),
    ("kernel_gs_base", "kernel gs base"),
)


def _cpu_lines(result: CpuRegisters, width: Width) -> Iterator[Line]:
    for state in result.cpus:
        name = result.names.get(state.registers.get("rip", 0))
        yield line((f"CPU {state.cpu}", "header"), f"  {state.source}", f"  {name}" if name else "")
        known = state.registers
        for register in [one for one in _ORDER if one in known] + sorted(known.keys() - set(_ORDER)):
            yield line((f"{register:>15}  ", "label"), f"{known[register]:016x}")
        for member, label in _CONTROL:
            value = getattr(state, member)
            if value is not None:
                yield line((f"{label:>15}  ", "label"), f"{value:016x}")
    yield from problem_lines(result.problems)


def _cpu_json(result: CpuRegisters) -> Json:
    cpus = [
        {
            "cpu": state.cpu,
            "source": state.source,
            "location": result.names.get(state.registers.get("rip", 0)),
            "registers": {name: hexadecimal(value) for name, value in state.registers.items()},
            **{member: hexadecimal(getattr(state, member)) for member, _ in _CONTROL},
        }
        for state in result.cpus
    ]
    return {"cpus": cpus, "problems": list(result.problems)}


view(FrameRegisters, text=_lines, json=_json)
view(CpuRegisters, text=_cpu_lines, json=_cpu_json)
