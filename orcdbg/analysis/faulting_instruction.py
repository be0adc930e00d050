"""Which memory did the faulting instruction want, and where was its pointer from?

The instruction is decoded from the text as it ran, its operands are computed from the registers that the exception saved. The
register that an operand counts from is followed back to the load that filled it (`x86/loads.py`), and forward from the
function's entry with the types of its parameters, which BTF knows (`PathFlow`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.analysis.crash_site import CrashException
from orcdbg.analysis.typed_registers import PathFlow, TypedValue, beginning
from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.kernel.names import Location
from orcdbg.x86.branches import target_of
from orcdbg.x86.follow import DecodedText, follow
from orcdbg.x86.instructions import Instruction, MemoryOperand, Outlined, decode_one, memory_operands, outline
from orcdbg.x86.loads import load_before

if TYPE_CHECKING:
    from orcdbg.target.session import Session

MAX_FUNCTION = 1 << 16  # bytes; a larger one is not followed
_BUDGET = 20_000  # boundaries, of which the largest functions have a few thousand


@dataclass(frozen=True, slots=True)
class ComputedOperand:
    """A memory operand, and where it is; `address` is None where a register of it is not known."""

    memory: MemoryOperand
    address: int | None


@dataclass(frozen=True, slots=True)
class Load:
    """The load that filled a register.

    Attributes:
        register: which.
        place: the address that was read.
        base: the register that the address counts from.
        now: what is at that address now; None where memory is missing.
    """

    register: str
    base: str
    place: int
    now: int | None


@dataclass(frozen=True, slots=True)
class FaultingInstruction:
    """The instruction at which an exception came.

    Attributes:
        instruction: decoded.
        function: that it is in.
        operands: its operands in memory.
        loads: for registers of these operands the loads that filled them, where that can be told.
        typed: what registers held by the types of the function's parameters.
    """

    instruction: Instruction
    function: Location | None
    operands: Sequence[ComputedOperand]
    loads: Mapping[str, Load]
    typed: Mapping[str, TypedValue]


def read_instruction(session: Session, fault: CrashException) -> FaultingInstruction:
    """The instruction that faulted.

    Raises:
        MemoryFault: its text is not there.
        NotFound: the bytes are no instruction.
    """
    data = session.text.read(fault.ip, 15)
    found = decode_one(data, fault.ip)
    if found is None:
        raise NotFound("instruction", f"{fault.ip:#x}")

    bases = {**fault.registers}
    operands = [
        ComputedOperand(memory, memory.address(bases, found.end))
        for memory in memory_operands(found.raw, found.address)
    ]
    function = session.names.at(fault.ip)
    loads: dict[str, Load] = {}
    typed: Mapping[str, TypedValue] = {}
    if function is not None and function.is_text and function.size <= MAX_FUNCTION:
        loads = _loads(session, function, fault, operands)
        typed = typed_at(session, function, fault.ip)
    return FaultingInstruction(found, function, operands, loads, typed)


def _loads(
    session: Session, function: Location, fault: CrashException, operands: Sequence[ComputedOperand]
) -> dict[str, Load]:
    """The loads of the operands' registers."""
    try:
        data = session.text.read(function.start, fault.ip + 15 - function.start)
    except MemoryFault:
        return {}
    insns = [Outlined(*fields) for fields in outline(data, function.start)]
    until = [insn for insn in insns if insn.address <= fault.ip]
    if not until or until[-1].address != fault.ip:
        return {}
    entered = _jump_targets(session, function)
    found = {}
    for register in {operand.memory.base for operand in operands} | {operand.memory.times for operand in operands}:
        if register is None or register in ("rip", "rsp"):
            continue
        memory = load_before(session.text, until, register, entered)
        if memory is None or memory.base not in fault.registers:
            continue
        place = fault.registers[memory.base] + memory.offset & U64
        try:
            now: int | None = read_u64(session.memory, place)
        except MemoryFault:
            now = None
        found[register] = Load(register, memory.base, place, now)
    return found


def _jump_targets(session: Session, function: Location) -> set[int]:
    """Where the function's own jumps go."""
    data = session.text.read(function.start, function.size)
    found = set()
    for fields in outline(data, function.start):
        insn = Outlined(*fields)
        if insn.mnemonic.startswith("j"):
            target = target_of(insn.operands)
            if target is not None:
                found.add(target)
    return found


def typed_at(session: Session, function: Location, ip: int) -> Mapping[str, TypedValue]:
    """What registers hold before the instruction at `ip`, by the types of the function's parameters; nothing where unknown."""
    try:
        begin = beginning(session.program, function)
        if not begin:
            return {}
        text = DecodedText(session.text.read(function.start, function.size), function.start)
        found = follow({function.start: begin}, PathFlow(session.program, text), _BUDGET)
    except OrcdbgError:
        return {}
    return found.states.get(ip, {}) if found.is_complete else {}
