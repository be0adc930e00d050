"""Which member of which structure is in a register, by the types of the function's parameters?

A function's parameters come in rdi, rsi, rdx, rcx, r8 and r9 (System V ABI), and BTF has their types. From there the walk goes
along the instructions: a plain load through a pointer to a structure is a read of the member at that offset, and what it brings
has that member's type. What an instruction does that is not known here, its registers lose their meaning by; calls keep the
registers that the ABI keeps.

A copy of a function that the compiler made (`.isra`, `.constprop`, `.part`) may have other parameters, so that nothing is said
of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orcdbg.kernel.names import Location
from orcdbg.typed.program import Program
from orcdbg.typed.types import ArrayType, CompoundType, FunctionType, PointerType, Type, resolved
from orcdbg.x86.follow import DecodedText
from orcdbg.x86.instructions import Instruction, MemoryOperand, memory_operands, written_registers
from orcdbg.x86.operands import register_in, split_operands
from orcdbg.x86.registers import ARGUMENTS, CALLEE_SAVED

_MAX_NESTING = 8


class TypedValue(NamedTuple):
    """What a register holds.

    Attributes:
        path: as C would write it: `queue->ring`.
        type: of that value.
        offset: bytes that were added to the pointer.
        place: what the path begins with: the function's parameter.
    """

    path: str
    type: Type
    offset: int = 0

    @property
    def target(self) -> Type | None:
        """What it points to; None where it is no pointer."""
        plain = resolved(self.type)
        return resolved(plain.target) if isinstance(plain, PointerType) else None


State = Mapping[str, TypedValue]


class MemberAt(NamedTuple):
    """A member as a path, and its type."""

    path: str
    type: Type


def beginning(program: Program, function: Location) -> dict[str, TypedValue]:
    """What the registers hold at a function's entry; nothing where BTF does not have it."""
    if "." in function.symbol:
        return {}
    source = program.kernel_types if function.module is None else program.module_types.of(function.module)
    prototype: FunctionType | None = None if source is None else source.function(function.symbol)
    if prototype is None:
        return {}
    found = {}
    registers = iter(ARGUMENTS)
    for name, type_ in prototype.parameters:
        plain = resolved(type_)
        if plain.size > 8:
            break  # a structure by value takes two registers, or the stack
        register = next(registers, None)
        if register is None:
            break
        if name:
            found[register] = TypedValue(name, type_)
    return found


def member_path(program: Program, type_: Type, offset: int, size: int) -> MemberAt | None:
    """The member of a type at an offset that is read with so many bytes; None where none of that size begins there.

    Args:
        program: completes types that are only declared.
        type_: a structure, union or array.
        offset: in bytes.
        size: of the access.
    """
    path, left = "", offset
    current = program.completed(resolved(type_))
    for _ in range(_MAX_NESTING):
        if isinstance(current, ArrayType):
            element = program.completed(resolved(current.target))
            if not element.size or (current.length is not None and left >= element.size * current.length):
                return None
            path += f"[{left // element.size}]"
            left %= element.size
            declared: Type = current.target
        elif isinstance(current, CompoundType):
            inside = [
                (member, current.member(member))
                for member in current.member_names
                if current.member(member).bit_offset // 8
                <= left
                < current.member(member).bit_offset // 8 + current.member(member).type.size
            ]
            if not inside or inside[0][1].bit_size:
                return None
            name, found = inside[0]
            path += f".{name}"
            left -= found.bit_offset // 8
            declared = found.type
        else:
            return None
        current = program.completed(resolved(declared))
        if not left and current.size == size and not isinstance(current, CompoundType | ArrayType):
            return MemberAt(path.lstrip("."), declared)
    return None


def read_path(program: Program, base: TypedValue, displacement: int, size: int) -> MemberAt | None:
    """What a read of so many bytes, that far from a typed pointer, reads: `queue->ring`."""
    target = base.target
    if target is None:
        return None
    offset = base.offset + displacement
    complete = program.completed(target)
    if not isinstance(complete, CompoundType):
        if offset == 0 and complete.size == size and size:
            return MemberAt(f"*{base.path}", complete)
        return None
    if not 0 <= offset < complete.size:
        return None
    found = member_path(program, complete, offset, size)
    return None if found is None else MemberAt(f"{base.path}->{found.path}", found.type)


class PathFlow:
    """Types followed through a function, as a `Flow`.

    Args:
        program: for types.
        text: of the function.
    """

    def __init__(self, program: Program, text: DecodedText) -> None:
        self._program = program
        self._text = text

    def steps(self, address: int, state: State, /) -> Iterable[tuple[int, State]]:
        """Where execution goes on, and what registers hold there."""
        insn = self._text.instruction(address)
        if insn is None:
            return
        after = self._after(insn, state)
        if insn.target is not None and not insn.is_call and self._text.holds(insn.target):
            yield insn.target, after
        if not insn.ends_flow and self._text.holds(insn.end):
            yield insn.end, after

    def arrive(self, address: int, state: State, /) -> State:
        """Every path counts."""
        return state

    def meet(self, known: State, arrived: State, /) -> State:
        """What both say."""
        return {name: value for name, value in known.items() if arrived.get(name) == value}

    def _after(self, insn: Instruction, state: State) -> State:
        if insn.is_call:
            return {name: value for name, value in state.items() if name in CALLEE_SAVED}
        written = written_registers(insn.raw)
        if written is None:
            return {}
        if not written:
            return state
        kept = {name: value for name, value in state.items() if name not in written}
        made = self._made(insn, state)
        if made is not None and written == {made[0]}:
            kept[made[0]] = made[1]
        return kept

    def _made(self, insn: Instruction, state: State) -> tuple[str, TypedValue] | None:
        """The register that an instruction fills, and with what."""
        operands = split_operands(insn.operands)
        target = register_in(operands[1]) if len(operands) == 2 else None
        if target is None:
            return None
        value = self._value(insn, operands[0], target, state)
        return None if value is None else (target, value)

    def _value(self, insn: Instruction, first: str, target: str, state: State) -> TypedValue | None:
        """What an instruction makes of its first operand: a copy, a sum, an address, or what memory has there."""
        register = register_in(first)
        if insn.mnemonic in _MOVES and register is not None:
            return state.get(register)
        if insn.mnemonic in _SUMS and first.startswith("$"):
            return _moved(state.get(target), int(first[1:], 0) * _SUMS[insn.mnemonic])

        memory = next(iter(memory_operands(insn.raw, insn.address)), None)
        if memory is None or memory.base is None or memory.times is not None or memory.segment is not None:
            return None
        base = state.get(memory.base)
        if insn.mnemonic in _ADDRESSES:
            return _moved(base, memory.displacement)
        if base is not None and insn.mnemonic in _MOVES and memory.size == 8 and memory.is_read:
            return self._read(base, memory)
        return None

    def _read(self, base: TypedValue, memory: MemoryOperand) -> TypedValue | None:
        found = read_path(self._program, base, memory.displacement, memory.size)
        return None if found is None else TypedValue(found.path, found.type)


_MOVES, _ADDRESSES = ("mov", "movq"), ("lea", "leaq")
_SUMS = {"add": 1, "addq": 1, "sub": -1, "subq": -1}


def _moved(value: TypedValue | None, amount: int) -> TypedValue | None:
    """A pointer, so many bytes further."""
    return None if value is None else value._replace(offset=value.offset + amount)
