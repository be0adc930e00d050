"""Through which pointer did an indirect call go, where what it was read from is still known?

Many an indirect call reads its target out of an object whose address is in a register that functions keep for their
callers, such as the operations of a clock or a file system. The finished walk knows that register in the calling frame,
and an object in read-only data still holds the pointer that it held at the call. Where such a register has the target
itself, as in the code that new tasks begin with, nothing else need be read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.base.sizes import U64
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Location
from orcdbg.patches.code import Code
from orcdbg.x86.branches import indirect_target, target_of
from orcdbg.x86.instructions import Outlined, outline
from orcdbg.x86.loads import load_before
from orcdbg.x86.operands import BasedMemory
from orcdbg.x86.registers import CALLEE_SAVED

MAX_FUNCTION = 1 << 15
MAX_BACK = 32  # instructions from the call to the load of its target
_THUNK = re.compile(r"__x86_indirect_(?:call_)?thunk_(r\w+)")
_FIRST_THUNK = "__x86_indirect_thunk_array"  # all thunks in the order of the registers' numbers, rax first
_JUMPS = re.compile(r"j|loop")
_KERNEL_HALF = 1 << 63


class PointerRead(NamedTuple):
    """A call's target was read at `offset` from what the callee-saved `register` holds, before the call and after.

    `offset` is None where the register holds the target itself.
    """

    register: str
    offset: int | None


class Pointers:
    """Answers from the text of one kernel, kept for the next time.

    Args:
        code: the kernel: its text as run and as built, whichever tells, and its read-only data.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._texts = (code.as_run, code.as_linked)
        self._constants = Constants(code)
        self._reads: dict[int, PointerRead | None] = {}
        self._jumps: dict[int, set[int] | None] = {}

    def read_by(self, return_address: int) -> PointerRead | None:
        """Where the call that ends at `return_address` has its target from; None where that does not follow from its text."""
        if return_address not in self._reads:
            self._reads[return_address] = self._find(return_address)
        return self._reads[return_address]

    def target(self, read: PointerRead, value: int) -> int | None:
        """Where the call went, if `value` is in the register; None where the pointer is not constant or not to be had.

        0 where it went nowhere: no object of the kernel is in the other half of the address space.
        """
        if read.offset is None:
            return value
        address = value + read.offset & U64
        return self._constants.read(address) if address >= _KERNEL_HALF else 0

    def _find(self, return_address: int) -> PointerRead | None:
        place = self._code.locate(return_address - 1)
        if place is None or not place.is_text or not 0 < place.size <= MAX_FUNCTION or ".cold" in place.symbol:
            return None  # into a part that was split off the whole function may jump
        found = (self._found_in(text, place, return_address) for text in self._texts)
        return next((one for one in found if one is not None), None)

    def _found_in(self, text: AddressSpace, place: Location, return_address: int) -> PointerRead | None:
        """The same by one of the texts."""
        insns = _instructions(text, place)
        number = next((number for number, insn in enumerate(insns) if insn.end == return_address), None)
        if number is None or not insns[number].mnemonic.startswith("call"):
            return None

        operands = insns[number].operands
        called = indirect_target(operands)
        if called is not None and called.memory is not None:
            return _read(called.memory)

        register = self._register_of_thunk(operands) if called is None else called.register
        if register in CALLEE_SAVED:
            return PointerRead(register, None)
        entered = None if register is None else self._entered(place)
        if register is None or entered is None:
            return None
        before = insns[max(0, number + 1 - MAX_BACK) : number + 1]
        return _read(load_before(text, before, register, entered))

    def _register_of_thunk(self, operands: str) -> str | None:
        """The register whose value a direct call goes to by way of a thunk; None where it calls something else."""
        target = target_of(operands)
        place = None if target is None else self._code.locate(target)
        if place is None:
            return None
        if (place.symbol, place.start) == (_FIRST_THUNK, target):
            return "rax"
        found = _THUNK.fullmatch(place.symbol)
        return None if found is None else found[1]

    def _entered(self, place: Location) -> set[int] | None:
        """Where jumps of a function and of its split-off parts go, in any of its texts; None where one may go anywhere."""
        if place.start not in self._jumps:
            known = [found for text in self._texts if (found := self._targets(text, place))]
            # Of indirect jumps those as built count: the others are what thunks were replaced by.
            is_open = not known or None in known[-1]
            whole = {target for one in known for target in one if target is not None}
            self._jumps[place.start] = None if is_open else whole
        return self._jumps[place.start]

    def _targets(self, text: AddressSpace, place: Location) -> set[int | None]:
        """The same in one of the texts, None for an indirect jump; empty only where the text has no such function."""
        todo = [_instructions(text, place)]
        found, parts = set[int | None](insn.address for insn in todo[0][:1]), {place.start}
        while todo:
            for insn in todo.pop():
                if not _JUMPS.match(insn.mnemonic.rpartition(" ")[2]):
                    continue
                target = target_of(insn.operands)
                found.add(target)
                other = None if target is None else self._code.locate(target)
                if other is None or other.start in parts or not other.symbol.startswith(f"{place.symbol}.cold"):
                    continue
                parts.add(other.start)
                todo.append(_instructions(text, other))
        return found


def _instructions(text: AddressSpace, place: Location) -> list[Outlined]:
    try:
        code = text.read(place.start, min(place.size, MAX_FUNCTION))
    except MemoryFault:
        return []
    return [Outlined(*insn) for insn in outline(code, place.start)]


def _read(memory: BasedMemory | None) -> PointerRead | None:
    return None if memory is None or memory.base not in CALLEE_SAVED else PointerRead(memory.base, memory.offset)


class Constants:
    """Pointers in the image's read-only data: as they are in memory, or where that is missing, as linked and moved.

    Args:
        code: the kernel.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._bounds = constant_bounds(code.linux)

    def read(self, address: int) -> int | None:
        """The pointer at a run-time address; None where that is no read-only data, or not to be had."""
        if not any(first <= address <= last - 8 for first, last in self._bounds):
            return None
        try:
            return read_u64(self._code.memory, address)
        except MemoryFault:
            pass
        try:
            linked = read_u64(self._code.as_linked, address)
        except MemoryFault:
            return None
        return linked + self._code.slide & U64 if linked >= _KERNEL_HALF else linked


def constant_bounds(linux: Linux) -> list[tuple[int, int]]:
    """Where the image's read-only data is, without what start-up code may still have written."""
    names = ("__start_rodata", "__start_ro_after_init", "__end_ro_after_init", "__end_rodata")
    start, late, late_end, end = (linux.find_address(name) or 0 for name in names)
    if not 0 < start < end:
        return []
    return [(start, late), (late_end, end)] if start <= late <= late_end <= end else [(start, end)]
