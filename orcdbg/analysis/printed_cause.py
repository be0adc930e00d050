"""How would an analysis of the dump put what a printed report says? The same finding, as far as the text has its values."""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.analysis.crash_site import name_of, take_apart
from orcdbg.analysis.detectors.lists import LIST_CHECKS
from orcdbg.analysis.detectors.refcounts import REFCOUNT_CHECK
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind
from orcdbg.analysis.printed_death import PrintedDeath, stack_of
from orcdbg.analysis.signature import frames_outside
from orcdbg.base.certainty import Certainty
from orcdbg.kernel.headlines import Announced, Headline
from orcdbg.unwind.frame import Frame
from orcdbg.x86.instructions import Instruction, MemoryOperand, memory_operands

_OF_MEMORY = (FindingKind.NULL_POINTER, FindingKind.WILD_POINTER, FindingKind.NON_CANONICAL)
# Kinds whose place is a line of the source, which the kernel printed itself.
_OF_LINES = (FindingKind.BUG, FindingKind.WARNING)
_UNKNOWN = "a place that is not known"


def printed_cause(death: PrintedDeath, said: Sequence[Headline], instruction: Instruction | None) -> Finding | None:
    """The finding; None where nothing died, or the text lacks what it is said of.

    Args:
        death: what the report says.
        said: all that it announces.
        instruction: at RIP.
    """
    if death.kind is None or death.said is None:
        return None
    panic = next((line for line in reversed(said) if line.announced is Announced.PANIC), None)
    way = _way(death)
    shown = Exhibit(death.said.text, "")
    values: dict[str, str | int] = {
        "place": _place(death, way),
        "said": _said(death, said),
        "message": "" if panic is None else panic.fields.get("message", ""),
        "pid": -1 if death.trace is None else death.trace.pid,
        "comm": "" if death.trace is None else death.trace.comm,
        "is_written": 0,
        "instruction": "an instruction that is not known" if instruction is None else instruction.text,
        "state": "",
        "caller": "",
        "target": _target(death),
        "address": "",
        "access": "access",
        "size": 0,
    }
    if death.kind in _OF_MEMORY:
        operand = _operand(death, instruction)
        if operand is None:
            return None
        memory, address = operand
        values |= {"address": f"{address:#x}", "size": memory.size, "access": "write" if memory.is_written else "read"}
    return Finding(death.kind, Certainty.DERIVED, values, [shown])


def _way(death: PrintedDeath) -> Sequence[Frame]:
    if death.trace is None:
        return ()
    stack = stack_of(death.trace)
    site = take_apart(stack)
    return stack.frames if site is None else site.way


def _place(death: PrintedDeath, way: Sequence[Frame]) -> str:
    """Where, as a finding of that kind has it."""
    if death.kind in _OF_LINES and death.said is not None and "file" in death.said.fields:
        return f"{death.said.fields['file']}:{death.said.fields['line']}"
    if death.kind in (FindingKind.LIST_CORRUPTION, FindingKind.REFCOUNT):
        checks = (*LIST_CHECKS, REFCOUNT_CHECK)
        found = next((frame for frame in frames_outside(way) if name_of(frame) not in checks), None)
        return "?" if found is None else _name(found)
    if death.registers is not None and death.registers.rip is not None:
        return death.registers.rip.name
    first = next(iter(way), None)
    return _UNKNOWN if first is None else _name(first)


def _name(frame: Frame) -> str:
    place = frame.location
    if place is None:
        return f"{frame.ip:#x}"
    return f"{place.symbol}+{frame.ip:#x}/{place.size:#x}" + (f" [{place.module}]" if place.module else "")


def _said(death: PrintedDeath, said: Sequence[Headline]) -> str:
    """The kernel's own words: of a list's check those on the list."""
    wanted = {FindingKind.LIST_CORRUPTION: Announced.LIST_CORRUPTION, FindingKind.REFCOUNT: Announced.REFCOUNT}
    announced = wanted.get(death.kind) if death.kind is not None else None
    found = next((line for line in reversed(said) if line.announced is announced), death.said)
    return "" if found is None else found.text


def _target(death: PrintedDeath) -> str:
    """Where a call through a bad pointer went."""
    if death.registers is None:
        return _UNKNOWN
    address = death.registers.rip_address
    if address is not None:
        return f"{address:#x}"
    return _UNKNOWN if death.registers.rip is None else death.registers.rip.name


def _operand(death: PrintedDeath, instruction: Instruction | None) -> tuple[MemoryOperand, int] | None:
    """The operand that faulted, and its address by the registers: the one that the kernel names, else the only one."""
    if instruction is None or death.registers is None or death.said is None:
        return None
    values = death.registers.values
    known = []
    for memory in memory_operands(instruction.raw, instruction.address):
        needed = [name for name in (memory.base, memory.times) if name is not None]
        if memory.segment is not None or not (memory.is_read or memory.is_written) or not values.keys() >= set(needed):
            continue
        address = memory.address(values, instruction.end)
        if address is not None:
            known.append((memory, address))
    named = death.said.number("address")
    if named is not None:
        found = [one for one in known if one[1] <= named < one[1] + max(one[0].size, 1)]
        return found[0] if found else None
    return known[0] if len(known) == 1 else None
