"""Did an instruction use a pointer to nowhere: NULL, not mapped, not canonical?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route, Vector
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.faulting_instruction import ComputedOperand, FaultingInstruction
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, derived, fact
from orcdbg.analysis.pointers import as_characters, is_canonical, poison_name
from orcdbg.analysis.typed_registers import read_path
from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.headlines import Announced
from orcdbg.x86.instructions import MemoryOperand

_FAULTS = (Vector.PAGE_FAULT, Vector.GENERAL_PROTECTION, Vector.STACK_SEGMENT)
_ANNOUNCED = (Announced.NULL_POINTER, Announced.PAGE_FAULT, Announced.GENERAL_PROTECTION)


def is_bad_pointer(case: Case) -> bool:
    """Whether such an exception is on the crashing stack, of an instruction that is there."""
    if not case.has_fault or case.site.route is not Route.OOPS:
        return False
    return case.fault.exception in _FAULTS and not is_bad_call(case)


def is_bad_call(case: Case) -> bool:
    """Whether the CPU went to where no code is: the ip itself is what could not be fetched."""
    ip = case.fault.ip
    if not is_canonical(ip, case.session.placement.levels):
        return True
    if case.session.is_text(ip):
        location = case.session.names.at(ip)
        return location is not None and not location.is_text
    if case.fault.exception is not Vector.PAGE_FAULT:
        return False
    # Code that the kernel made lies where no list may name it; what can be run was fetched.
    found = case.session.memory.explain(ip)
    return found.physical is None or not found.is_executable


def announced_address(case: Case) -> int | None:
    """The address that the kernel's own report of the last such fault names."""
    try:
        line = case.last(*_ANNOUNCED)
    except OrcdbgError:
        return None
    return None if line is None else line.number("address")


def faulting_operand(case: Case, instruction: FaultingInstruction) -> ComputedOperand | None:
    """The operand that cannot be had: the one that the kernel names, else the only one."""
    known = [operand for operand in instruction.operands if operand.address is not None]
    wanted = [operand for operand in known if operand.memory.is_read or operand.memory.is_written]
    # Up to 5.10 the kernel's own report leaves out the displacement of the address that is none.
    levels = case.session.placement.levels
    not_canonical = [operand for operand in wanted if not is_canonical(operand.address or 0, levels)]
    if len(not_canonical) == 1:
        return not_canonical[0]
    named = announced_address(case)
    for operand in wanted:
        address = operand.address or 0
        if named is not None and address <= named < address + max(operand.memory.size, 1):
            return operand
    if named is not None:
        return None
    return wanted[0] if len(wanted) == 1 else None


def shown_registers(case: Case, memory: MemoryOperand) -> Exhibit:
    """The registers that an operand counts from."""
    names = [name for name in (memory.base, memory.times) if name in case.fault.registers]
    text = ", ".join(f"{name} = {case.fault.registers[name]:#x}" for name in names if name is not None)
    return Exhibit(text or "no register", f"bt --why {case.fault.place}")


def _detect(case: Case) -> Iterator[Finding]:
    instruction, ip = case.instruction, case.fault.ip
    place = case.name(ip)
    shown = Exhibit(f"{place}: {instruction.instruction.text}", f"dis {ip:#x}")
    operand = faulting_operand(case, instruction)
    if operand is None or operand.address is None:
        yield fact(
            FindingKind.GENERAL_PROTECTION
            if case.fault.exception is not Vector.PAGE_FAULT
            else FindingKind.WILD_POINTER,
            shown,
            addresses=[ip],
            place=place,
            instruction=instruction.instruction.text,
            access="access",
            address="",
            size=0,
            state="",
        )
        return

    address, memory = operand.address, operand.memory
    access = "write" if memory.is_written else "read"
    yield fact(
        _kind(case, address),
        shown,
        shown_registers(case, memory),
        addresses=[ip, address],
        place=place,
        instruction=instruction.instruction.text,
        access=access,
        address=f"{address:#x}",
        size=memory.size,
        state=_state(case, address, memory.is_written),
    )
    yield from pointer_history(case, instruction, operand)


def _state(case: Case, address: int, is_write: bool) -> str:
    """What page tables say of an address now: a word of the view's."""
    if not address >> 63:
        return "user"
    found = case.session.memory.explain(address)
    if found.physical is None:
        return "unmapped"
    return "read-only" if is_write and not found.is_writable else "mapped"


def _kind(case: Case, address: int) -> FindingKind:
    if address < PAGE:
        return FindingKind.NULL_POINTER
    if not is_canonical(address, case.session.placement.levels):
        return FindingKind.NON_CANONICAL
    return FindingKind.WILD_POINTER


def pointer_history(case: Case, instruction: FaultingInstruction, operand: ComputedOperand) -> Iterator[Finding]:
    """Where the register was loaded from, what is there now, and what that is by the types."""
    memory = operand.memory
    registers = case.fault.registers
    base = memory.base
    if base is None or base not in registers:
        return
    load = instruction.loads.get(base)
    if load is not None:
        is_still = load.now == registers[base]
        now = "?" if load.now is None else f"{load.now:#x}"
        yield derived(
            FindingKind.LOADED_FROM if is_still else FindingKind.LOADED_SINCE_CHANGED,
            Exhibit(f"{load.place:#x}: {now}", f"rd {load.place:#x} 1"),
            addresses=[load.place],
            register=base,
            value=f"{registers[base]:#x}",
            place=f"{load.place:#x}",
            base=load.base,
            now=now,
        )
    typed = instruction.typed.get(base)
    if typed is not None and memory.times is None:
        found = read_path(case.session.program, typed, memory.displacement, memory.size)
        yield derived(
            FindingKind.TYPED,
            Exhibit(f"{base}: {typed.path}", f"dis -r {case.fault.ip:#x}"),
            addresses=[],
            register=base,
            path=typed.path,
            value=f"{registers[base]:#x}",
            member="" if found is None else found.path,
            function=instruction.function.symbol if instruction.function is not None else "",
        )
    name, characters = poison_name(registers[base]), as_characters(registers[base])
    if name is None and characters is not None:
        yield fact(
            FindingKind.ASCII_POINTER,
            shown_registers(case, memory),
            register=base,
            characters=characters,
            value=f"{registers[base]:#x}",
        )


DETECTOR = Detector("a bad pointer", (Input.STACK, Input.REGISTERS, Input.TEXT), is_bad_pointer, _detect)
