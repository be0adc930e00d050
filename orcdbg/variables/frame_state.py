"""What may the locations of a frame's variables count on: its registers, its CFA, what its function was called with?

Everything here is by the corrected walk. A register is the frame's if an interrupt saved it or a callee kept it; the CFA is the
one that the return address was found by; an argument's value at the call is by the caller's call site, and only where the call
instruction itself leads to this function and no tail call can have come in between.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from elftools.dwarf.die import DIE

from orcdbg.base.reasons import UnknownRegister, WhyNoValue
from orcdbg.base.sizes import U64
from orcdbg.formats import dwarf_entries as dwarf
from orcdbg.formats.callframe import REGISTERS
from orcdbg.formats.dwarf_locations import address_of_number, expression_at
from orcdbg.image.compile_units import CompileUnit, CompileUnits
from orcdbg.image.module_file import NOWHERE
from orcdbg.patches.code import Code
from orcdbg.typed.dwarf_types import DwarfTypes
from orcdbg.typed.objects import ValueUnavailable
from orcdbg.typed.types import IntType, resolved
from orcdbg.unwind.frame import Frame, FrameKind, Registers
from orcdbg.unwind.registers.finder import KnownRegisters
from orcdbg.variables.expression import REG0, REG31, REGX, value_of
from orcdbg.x86.registers import CALLEE_SAVED

# Values at the entry of functions that lead to values at the entry of their callers, and so on.
MAX_ENTRIES_UP = 8
# FramePlaces where one function calls others.
MAX_CALL_SITES = 1 << 14

_RSP = REGISTERS.index("rsp")
_RIP = REGISTERS.index("rip")
_CALL_PARAMETERS = ("DW_TAG_call_site_parameter", "DW_TAG_GNU_call_site_parameter")
# Where a call returns to; GNU's attribute before DWARF 5.
_RETURNS = ("DW_AT_call_return_pc", "DW_AT_low_pc")
_VALUES = ("DW_AT_call_value", "DW_AT_GNU_call_site_value")
_TAIL_CALLS = ("DW_AT_call_tail_call", "DW_AT_GNU_tail_call")
_ALL_DESCRIBED = (
    *("DW_AT_call_all_calls", "DW_AT_call_all_tail_calls", "DW_AT_call_all_source_calls"),
    *("DW_AT_GNU_all_call_sites", "DW_AT_GNU_all_tail_call_sites", "DW_AT_GNU_all_source_call_sites"),
)


class Debugged(NamedTuple):
    """The DWARF that describes an address.

    Attributes:
        units: of the file.
        types: of the file.
        slide: run-time minus the file's addresses.
    """

    units: CompileUnits
    types: DwarfTypes
    slide: int


FindDebugged = Callable[[int], Debugged | None]


class FramePlace(NamedTuple):
    """Where in its file's DWARF a frame is.

    Attributes:
        debugged: the file's.
        unit: the compile unit.
        address: that the frame is looked up at, as the file has it: of a return address the call's.
        scopes: what that is in, outermost first; not empty.
    """

    debugged: Debugged
    unit: CompileUnit
    address: int
    scopes: Sequence[DIE]


def looked_up_at(frame: Frame) -> int:
    """The run-time address whose state the frame is in: a return address belongs to the call before it."""
    ip, is_exact = frame.looked_up
    return ip if is_exact else ip - 1


class FrameVariablesState:
    """One frame as expressions ask for it; see `expression.FrameState`.

    Args:
        code: the kernel's code and memory.
        frames: of the stack.
        known: the registers of these frames.
        places: of these frames, None of those without DWARF.
        index: of the frame.
        depth: how many frames further in asked for it.
    """

    def __init__(
        self,
        code: Code,
        frames: Sequence[Frame],
        known: Sequence[KnownRegisters],
        places: FramePlaces,
        index: int,
        depth: int = 0,
    ) -> None:
        self._code = code
        self._frames = frames
        self._known = known
        self._places = places
        self._index = index
        self._depth = depth
        self.frame = frames[index]
        place = places.at(index)
        assert place is not None
        self.place: FramePlace = place
        # Frames further out that a value was taken from: it is as sure as they are.
        self.leaned_on: set[int] = set()

    def register(self, number: int) -> int:
        """A register's value, by DWARF's number for it."""
        if not 0 <= number < len(REGISTERS):
            raise ValueUnavailable(f"it was in register {number}, which the kernel does not save", WhyNoValue.NOT_SAVED)
        name = REGISTERS[number]
        if number == _RIP:
            return self.frame.ip
        if number == _RSP:
            return self._built_sp()

        registers: Registers = self._known[self._index].values
        if name in registers:
            if self.frame.exact and self.frame.is_corrected and name not in CALLEE_SAVED:
                words = f"it was in {name}, which the patched instructions here may have changed"
                raise ValueUnavailable(words, WhyNoValue.PATCHED)
            return registers[name].value
        why = self._known[self._index].unknown.get(name)
        if why is None:
            words = "a call may have changed it" if not self.frame.exact else "nothing saved it"
            why = UnknownRegister(words, WhyNoValue.NOT_SAVED)
        raise ValueUnavailable(f"it was in {name}: {why}", why.code)

    def _built_sp(self) -> int:
        """The stack pointer as it would be had nobody patched the text: what expressions count on."""
        frame = self.frame
        if frame.source.is_derived:
            why = "it counts from rsp, and this code's stack is not as its build describes it"
            raise ValueUnavailable(why, WhyNoValue.NOT_KNOWN)
        return frame.sp + (frame.patch.adjust if frame.patch is not None else 0) & U64

    def cfa(self) -> int:
        """The canonical frame address."""
        if self.frame.cfa is None:
            raise ValueUnavailable("it counts from the frame's CFA, which is not known", WhyNoValue.NOT_KNOWN)
        return self.frame.cfa

    @functools.cached_property
    def _frame_base(self) -> int:
        place = self.place
        function = place.scopes[0]
        base = function.attributes.get("DW_AT_frame_base")
        if base is None:
            raise ValueUnavailable("it counts from a frame base that the build does not state", WhyNoValue.NOT_KNOWN)
        if isinstance(base.value, int):
            raise ValueUnavailable("it counts from a frame base that moves", WhyNoValue.NOT_KNOWN)
        return value_of(bytes(base.value), self, place.unit.unit.name)

    def frame_base(self) -> int:
        """What DW_OP_fbreg counts from."""
        return self._frame_base

    def read(self, address: int, size: int) -> bytes:
        """Memory."""
        return self._code.memory.read(address, size)

    def run_time(self, address: int) -> int:
        """The run-time address of an address that the file states; per-CPU offsets stay what they are."""
        if NOWHERE[0] <= address <= NOWHERE[1]:
            raise ValueUnavailable("it is where a symbol is that nobody defines", WhyNoValue.NOT_UNDERSTOOD)
        return address + self.place.debugged.slide & U64 if address >> 63 else address

    def numbered_address(self, number: int) -> int:
        """The address of a number in `.debug_addr`, as the file states it."""
        return address_of_number(self.place.debugged.units.sections, self.place.unit.unit, number)

    def base_type(self, offset: int) -> tuple[int, bool | None]:
        """Size and sign of the basic type whose entry is there in the unit; the generic one is at 0."""
        if not offset:
            return 8, None
        unit = self.place.unit.unit
        type_ = resolved(self.place.debugged.types.at(unit.offset + offset))
        if not isinstance(type_, IntType) or not 0 < type_.size <= 16:
            raise ValueUnavailable("its location computes with a type that is no integer", WhyNoValue.NOT_UNDERSTOOD)
        return type_.size, type_.is_signed

    # Values at the function's entry

    def entry_value(self, expression: bytes) -> int:
        """What an expression was when the function was entered: by the caller, where its call site says."""
        number = _register_of(expression)
        if number is None:
            raise ValueUnavailable("it is what memory held when the function was called", WhyNoValue.NO_CALLER)
        caller = self._caller(REGISTERS[number])
        value = _argument(caller, number)
        if value is None:
            why = f"it was {REGISTERS[number]} at the call, and the caller does not keep what it passed there"
            raise ValueUnavailable(why, WhyNoValue.NO_CALLER)
        self.leaned_on |= {caller.frame.index, *caller.leaned_on}
        result = value_of(value, caller, caller.place.unit.unit.name)
        self.leaned_on |= caller.leaned_on
        return result

    def _caller(self, name: str) -> FrameVariablesState:
        """The frame whose call entered this function.

        gdb asks the same two questions (dwarf2/loc.c, func_verify_no_selftailcall): a function that was entered by a tail
        call, or once more by one out of itself, was not given what the call site says.
        """
        what = f"it was {name} at the call"
        index = self._index + 1
        if self._depth >= MAX_ENTRIES_UP or index >= len(self._frames):
            raise ValueUnavailable(f"{what}, and no caller is known", WhyNoValue.NO_CALLER)
        frame = self._frames[index]
        if frame.kind is not FrameKind.CALL or frame.exact or self._places.at(index) is None:
            raise ValueUnavailable(f"{what}, and the caller has no description", WhyNoValue.NO_CALLER)

        function = self.place.scopes[0]
        entry = _entry_address(self.place.unit, function)
        target = self._code.call_target(frame.ip)
        if entry is None or target is None or target != self.run_time(entry):
            why = f"{what}, and the caller's instruction does not call this function directly"
            raise ValueUnavailable(why, WhyNoValue.NO_CALLER)
        if not _is_without_tail_calls(self.place.unit, function):
            raise ValueUnavailable(f"{what}, and a tail call may have entered the function anew", WhyNoValue.NO_CALLER)
        return FrameVariablesState(self._code, self._frames, self._known, self._places, index, self._depth + 1)


class FramePlaces:
    """Where the frames of one stack are in DWARF, each looked up once.

    Args:
        frames: of the stack.
        find: gives the DWARF that describes a run-time address, None without.
    """

    def __init__(self, frames: Sequence[Frame], find: FindDebugged) -> None:
        self._frames = frames
        self._find = find
        self._found: dict[int, FramePlace | None] = {}

    def at(self, index: int) -> FramePlace | None:
        """Where a frame is, None of one without DWARF; UnsupportedFormat where that is damaged."""
        if index not in self._found:
            self._found[index] = self._look_up(self._frames[index])
        return self._found[index]

    def _look_up(self, frame: Frame) -> FramePlace | None:
        if frame.kind is FrameKind.USER:
            return None
        address = looked_up_at(frame)
        debugged = self._find(address)
        if debugged is None:
            return None
        unit = debugged.units.at(address - debugged.slide)
        if unit is None:
            return None
        scopes = unit.scopes(address - debugged.slide)
        return FramePlace(debugged, unit, address - debugged.slide, scopes) if scopes else None


def _register_of(expression: bytes) -> int | None:
    """The register that an expression is no more than."""
    if len(expression) == 1 and REG0 <= expression[0] <= REG31:
        number = expression[0] - REG0
    elif len(expression) == 2 and expression[0] == REGX:
        number = expression[1]
    else:
        return None
    return number if number < len(REGISTERS) else None


def _entry_address(unit: CompileUnit, function: DIE) -> int | None:
    """Where a function's code begins."""
    address = dwarf.integer(function, "DW_AT_entry_pc")
    if address is not None and function.attributes["DW_AT_entry_pc"].form.startswith("DW_FORM_addr"):
        return address
    low = dwarf.integer(function, "DW_AT_low_pc")
    if low is not None:
        return low
    # Of a function in pieces the first listed is the one that is entered.
    ranges = unit.unit.ranges(function)
    return ranges[0][0] if ranges else None


def _is_without_tail_calls(unit: CompileUnit, function: DIE) -> bool:
    """Whether a function ends in no jump to another, by a description that is whole."""
    if not any(dwarf.flag(function, name) for name in _ALL_DESCRIBED):
        return False
    return not any(dwarf.flag(site, name) for site in unit.call_sites(function) for name in _TAIL_CALLS)


def _argument(caller: FrameVariablesState, number: int) -> bytes | None:
    """The expression for what a caller's frame passed in a register, by its call site."""
    place = caller.place
    returns = caller.frame.ip - place.debugged.slide
    for site in place.unit.call_sites(place.scopes[0]):
        if returns not in (dwarf.integer(site, name) for name in _RETURNS):
            continue
        for parameter in place.unit.unit.children(site):
            if parameter.tag not in _CALL_PARAMETERS:
                continue
            location = expression_at(place.debugged.units.sections, place.unit.unit, parameter, place.address)
            if location is None or _register_of(location) != number:
                continue
            value = next((parameter.attributes[name].value for name in _VALUES if name in parameter.attributes), None)
            return bytes(value) if value is not None and not isinstance(value, int) else None
    return None
