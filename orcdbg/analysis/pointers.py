"""What is a pointer that a crash involves: in which object, freed or not, or no pointer at all?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.analysis.case import Case
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, derived, fact
from orcdbg.base.certainty import Certainty
from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE, U64
from orcdbg.subsystems.slab import ObjectState

_MAX_ERRNO = 4095
# include/linux/poison.h, by their bytes, lowest first.
_POISON = {0x6B: "POISON_FREE", 0x5A: "POISON_INUSE", 0xA5: "POISON_END", 0xCC: "RED_ACTIVE", 0xBB: "RED_INACTIVE"}
_LIST_POISONS = {0xDEAD_0000_0000_0100: "LIST_POISON1", 0xDEAD_0000_0000_0122: "LIST_POISON2"}


class Involved(NamedTuple):
    """A pointer, and what it is to the crash: the name of a register, `list node`."""

    role: str
    value: int


def involved_pointers(case: Case) -> list[Involved]:
    """The pointers that the faulting instruction wanted, and where it had them from; none without a fault."""
    if not case.has_fault:
        return []
    found: list[Involved] = []
    try:
        instruction = case.instruction
    except OrcdbgError:
        return [Involved("rip", case.fault.ip)]
    for operand in instruction.operands:
        for register in (operand.memory.base, operand.memory.times):
            if register is None or register in ("rip", "rsp") or register not in case.fault.registers:
                continue
            found.append(Involved(register, case.fault.registers[register]))
            load = instruction.loads.get(register)
            if load is not None:
                found.append(Involved(load.base, case.fault.registers[load.base]))
    return list(dict.fromkeys(found))


def poison_name(value: int) -> str | None:
    """The name of the poison that a value is, or is near to; None for another value."""
    for poison, name in _LIST_POISONS.items():
        if 0 <= value - poison < 0x22 or value == poison:
            return name
    data = value.to_bytes(8, "little")
    for byte, name in _POISON.items():
        # What was added to the poison, an offset, changes the lowest bytes alone.
        if data[2:] == bytes([byte]) * 6:
            return name
    return None


def as_characters(value: int) -> str | None:
    """The value as text where all of its bytes but trailing zeros are printable ASCII, at least six of them."""
    data = value.to_bytes(8, "little").rstrip(b"\0")
    return data.decode("ascii") if len(data) >= 6 and all(0x20 <= byte < 0x7F for byte in data) else None


def is_canonical(value: int, levels: int) -> bool:
    """Whether an address is one to a CPU with so many levels of page tables: its upper bits are all equal."""
    upper = value >> 12 + 9 * levels - 1
    return upper in (0, (1 << 64 - (12 + 9 * levels - 1)) - 1)


def describe(case: Case, role: str, value: int) -> Iterator[Finding]:
    """What a pointer is, as statements."""
    shown = Exhibit(f"{role} = {value:#018x}", f"whatis {value:#x}")
    kind = _by_value(value, case.session.placement.levels)
    if kind is not None:
        yield Finding(kind[0], Certainty.FACT, {"role": role, "value": f"{value:#x}", **kind[1]}, [shown], [value])
        return
    yield from _by_memory(case, role, value, shown)


def _by_value(value: int, levels: int) -> tuple[FindingKind, dict[str, str | int]] | None:
    """What can be told without memory."""
    name = poison_name(value)
    if value < PAGE:
        return FindingKind.POINTER_NULL, {}
    if value > U64 - _MAX_ERRNO:
        return FindingKind.POINTER_ERROR, {"number": value - U64 - 1}
    if name is not None:
        return FindingKind.POINTER_POISON, {"name": name}
    characters = as_characters(value)
    if characters is not None:
        return FindingKind.POINTER_CHARACTERS, {"characters": characters}
    if not is_canonical(value, levels):
        return FindingKind.POINTER_NON_CANONICAL, {}
    if not value >> 63:
        return FindingKind.POINTER_USER, {}
    return None


def _by_memory(case: Case, role: str, value: int, shown: Exhibit) -> Iterator[Finding]:
    names: dict[str, str | int] = {"role": role, "value": f"{value:#x}"}
    obj = case.slab_object(value)
    if obj is not None:
        kind, make = {
            ObjectState.FREE: (FindingKind.POINTER_SLAB_FREE, fact),
            ObjectState.ALLOCATED: (FindingKind.POINTER_SLAB_ALLOCATED, derived),
            ObjectState.UNKNOWN: (FindingKind.POINTER_SLAB_UNKNOWN, fact),
        }[obj.state]
        merged = case.session.kernel_memory.slabs.names_merged_into(obj.cache)
        names |= {
            "cache": obj.cache.name,
            "also": ", ".join(name for name in merged if name != obj.cache.name)[:200],
            "object": f"{obj.start:#x}",
            "offset": obj.offset,
            "size": obj.cache.object_size,
            "proof": obj.proof.value,
        }
        yield make(kind, shown, addresses=[value, obj.start], **names)
        return
    stack = case.session.kernel_memory.stack_at(value)
    if stack is not None:
        names |= {"stack": stack[0].kind.value, "pid": -1 if stack[1] is None else stack[1].pid}
        yield fact(FindingKind.POINTER_STACK, shown, addresses=[value], **names)
        return
    symbol = case.session.names.describe(value)
    if symbol is not None:
        yield fact(FindingKind.POINTER_SYMBOL, shown, addresses=[value], symbol=symbol, **names)
        return
    is_mapped = case.session.memory.explain(value).physical is not None
    kind = FindingKind.POINTER_MAPPED if is_mapped else FindingKind.POINTER_UNMAPPED
    yield fact(kind, shown, addresses=[value], **names)
