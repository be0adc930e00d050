"""Which variables and arguments does a frame have, and what are their values?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from elftools.dwarf.die import DIE

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.base.reasons import WhyNoValue
from orcdbg.formats import dwarf_entries as dwarf
from orcdbg.formats.callframe import REGISTERS
from orcdbg.formats.dwarf_locations import expression_at
from orcdbg.patches.code import Code
from orcdbg.typed.objects import Absent, Immediate, InMemory, Object, ValueUnavailable
from orcdbg.typed.objects import Place as ValuePlace
from orcdbg.typed.program import Program
from orcdbg.typed.types import Type
from orcdbg.unwind.frame import Frame, StackTrace
from orcdbg.unwind.registers.finder import KnownRegisters, RegisterFinder
from orcdbg.variables.expression import AtAddress, Computed, InRegister, LocationPart, VariableLocation, evaluated
from orcdbg.variables.frame_state import Debugged, FindDebugged, FramePlace, FramePlaces, FrameVariablesState

# Of one frame, inlined functions' too; the most that a kernel's function has is some hundreds.
MAX_VARIABLES = 1 << 12
# Bytes of a variable that is put together of pieces.
MAX_SIZE = 1 << 16

__all__ = ["Debugged", "FindDebugged", "LocalVariables", "StackVariables", "Variable"]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable or argument of a frame.

    Attributes:
        name: its name.
        is_argument: whether it is the function's argument.
        function: the function that it is of, which may be inlined in the frame's.
        is_inlined: whether that is so.
        object: its value; `place_` says where that is, or why it is not there.
        is_sure: False where the frame, or one that the value was taken from, is in doubt.
    """

    name: str
    is_argument: bool
    function: str
    is_inlined: bool
    object: Object
    is_sure: bool


class LocalVariables:
    """Finds variables of frames.

    Args:
        program: the kernel's typed data.
        code: its code and memory.
        registers: restores callee-saved registers.
        find: gives the DWARF that describes a run-time address.
    """

    def __init__(self, program: Program, code: Code, registers: RegisterFinder, find: FindDebugged) -> None:
        self._program = program
        self._code = code
        self._registers = registers
        self._find = find

    def of(self, trace: StackTrace) -> StackVariables:
        """Those of a stack's frames."""
        return StackVariables(self._program, self._code, trace.frames, self._registers.all(trace), self._find)


class StackVariables:
    """The variables of the frames of one stack.

    Args:
        program: the kernel's typed data.
        code: its code and memory.
        frames: of the stack.
        known: their registers.
        find: gives the DWARF that describes a run-time address.
    """

    def __init__(
        self,
        program: Program,
        code: Code,
        frames: Sequence[Frame],
        known: Sequence[KnownRegisters],
        find: FindDebugged,
    ) -> None:
        self._program = program
        self._code = code
        self._frames = frames
        self._known = known
        self._places = FramePlaces(frames, find)

    def is_described(self, index: int) -> bool:
        """Whether there is DWARF for a frame; UnsupportedFormat where it is damaged."""
        return self._places.at(index) is not None

    def state(self, index: int) -> FrameVariablesState:
        """A frame that is described, as expressions ask for it."""
        return FrameVariablesState(self._code, self._frames, self._known, self._places, index)

    def of_frame(self, index: int) -> list[Variable]:
        """The variables of a frame, the innermost scope's first: of inlined functions before those that they are in.

        Raises:
            UnsupportedFormat: the DWARF that describes it is damaged.
        """
        return [self._variable(index, place, *found) for place, found in self._entries(index)]

    def find(self, index: int, name: str) -> Variable | None:
        """The variable that a name means in a frame, None where it means none there."""
        for place, (entry, scope, is_inlined) in self._entries(index):
            if place.unit.unit.name_of(entry) == name:
                return self._variable(index, place, entry, scope, is_inlined)
        return None

    def _entries(self, index: int) -> Iterator[tuple[FramePlace, tuple[DIE, DIE, bool]]]:
        """The entries of a frame's variables, each with the function that it is of, and whether that is inlined."""
        place = self._places.at(index)
        if place is None:
            return
        functions: list[DIE] = []
        for scope in place.scopes:
            is_block = scope.tag == dwarf.LEXICAL_BLOCK
            functions.append(functions[-1] if is_block and functions else scope)

        place.debugged.units.sections.work.begin()
        count = 0
        for scope, function in zip(reversed(place.scopes), reversed(functions), strict=True):
            for entry in place.unit.unit.children(scope):
                if entry.tag not in (dwarf.VARIABLE, dwarf.PARAMETER):
                    continue
                count += 1
                if count > MAX_VARIABLES:
                    raise UnsupportedFormat(place.unit.unit.name, f"a frame of more than {MAX_VARIABLES} variables")
                if place.unit.unit.name_of(entry) and not dwarf.flag(entry, "DW_AT_declaration"):
                    yield place, (entry, function, function.tag == dwarf.INLINED)

    def _variable(self, index: int, place: FramePlace, entry: DIE, function: DIE, is_inlined: bool) -> Variable:
        unit = place.unit.unit
        state = self.state(index)
        type_ = place.debugged.types.type_of(place.unit, entry)
        where = self._place_of(state, entry, type_)
        return Variable(
            name=unit.name_of(entry) or "",
            is_argument=entry.tag == dwarf.PARAMETER,
            function=unit.name_of(function) or "?",
            is_inlined=is_inlined,
            object=Object(self._program, type_, where),
            is_sure=all(self._frames[each].mark.is_sure for each in (index, *state.leaned_on)),
        )

    def _place_of(self, state: FrameVariablesState, entry: DIE, type_: Type) -> ValuePlace:
        """Where a variable's bytes are."""
        place = state.place
        unit = place.unit.unit
        try:
            constant = _constant(place, entry)
            if constant is not None:
                return _immediate(constant, self._size(type_))
            expression = expression_at(place.debugged.units.sections, unit, entry, place.address)
            if expression is None:
                if "DW_AT_location" in entry.attributes:
                    return Absent("not kept at this point", WhyNoValue.NOT_KEPT_HERE)
                return Absent("optimised out", WhyNoValue.OPTIMISED_OUT)
            parts = evaluated(expression, state, unit.name, unit.offset_size)
            return self._put_together(state, parts, type_)
        except ValueUnavailable as error:
            return Absent(error.message, error.code)
        except MemoryFault as error:
            return Absent(f"its location needs memory: {error.message}", WhyNoValue.NO_MEMORY)

    def _size(self, type_: Type) -> int:
        size = self._program.completed(type_).size
        if not 0 < size <= MAX_SIZE:
            raise ValueUnavailable(
                "its type has no size that a register or piece could hold", WhyNoValue.NOT_UNDERSTOOD
            )
        return size

    def _put_together(self, state: FrameVariablesState, parts: Sequence[LocationPart], type_: Type) -> ValuePlace:
        """The place of a variable that is in these parts."""
        if len(parts) == 1 and parts[0].bits is None:
            location = parts[0].location
            if isinstance(location, AtAddress):
                return self._in_memory(state, location.address)
            data = _bytes_of(location, state)
            return _immediate(data, self._size(type_))

        size = self._size(type_)
        only = parts[0]
        if isinstance(only.location, AtAddress) and not only.first_bit and (only.bits or 0) >= 8 * size:
            # gcc writes structures as pieces, those that are in one place too.
            return self._in_memory(state, only.location.address)

        whole = bits = 0
        for part in parts:
            if part.bits is None:
                raise ValueUnavailable("its location is in pieces and not", WhyNoValue.NOT_UNDERSTOOD)
            number = self._part(state, part.location, part.first_bit, part.bits)
            whole |= number << bits
            bits += part.bits
            if bits > 8 * MAX_SIZE:
                raise ValueUnavailable("its pieces are larger than any variable", WhyNoValue.TOO_LARGE)
        if bits < 8 * size:
            raise ValueUnavailable("a part of it was optimised out", WhyNoValue.OPTIMISED_OUT)
        return Immediate((whole & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def _part(self, state: FrameVariablesState, location: VariableLocation, first_bit: int, bits: int) -> int:
        """The bits of a piece."""
        needed = -(-(first_bit + bits) // 8)
        if isinstance(location, AtAddress):
            data = state.read(location.address, min(needed, MAX_SIZE))
        else:
            data = _bytes_of(location, state)
        if len(data) < needed:
            raise ValueUnavailable("a part of it was optimised out", WhyNoValue.OPTIMISED_OUT)
        return int.from_bytes(data, "little") >> first_bit & (1 << bits) - 1

    def _in_memory(self, state: FrameVariablesState, address: int) -> ValuePlace:
        if not address >> 63 and self._program.is_per_cpu(address):
            return Absent("a per-CPU variable: name it, and the CPU", WhyNoValue.PER_CPU)
        return InMemory(address)


def _bytes_of(location: VariableLocation, state: FrameVariablesState) -> bytes:
    """The bytes of what is not in memory."""
    if isinstance(location, InRegister):
        if location.number >= len(REGISTERS):
            raise ValueUnavailable("it was in a vector register, which the kernel does not save", WhyNoValue.NOT_SAVED)
        return state.register(location.number).to_bytes(8, "little")
    if isinstance(location, Computed):
        return location.data
    if isinstance(location, AtAddress):
        raise ValueUnavailable("it is in memory", WhyNoValue.NOT_UNDERSTOOD)
    raise ValueUnavailable(location.why, WhyNoValue.OPTIMISED_OUT)


def _immediate(data: bytes, size: int) -> ValuePlace:
    if len(data) < size:
        raise ValueUnavailable("a part of it was optimised out", WhyNoValue.OPTIMISED_OUT)
    return Immediate(data[:size])


def _constant(place: FramePlace, entry: DIE) -> bytes | None:
    """The value of a variable that is a constant."""
    for account in place.unit.unit.accounts_of(entry):
        value = account.attributes.get("DW_AT_const_value")
        if value is None:
            continue
        if isinstance(value.value, int):
            # A number may be given in fewer bytes than the variable has.
            return (value.value & (1 << 128) - 1).to_bytes(16, "little")
        return bytes(value.value)
    return None
