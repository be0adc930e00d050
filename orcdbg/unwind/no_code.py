"""Did the CPU come to this address, where there is no code, by the call whose return address is on top of the stack?

A call or jump through a pointer that is NULL, freed or overwritten leaves the CPU at an address that it cannot run. Nothing
has run there: the stack pointer is where the call left it, and the register or memory that the pointer was taken from is as
it was. Mirrors null_orc_entry of arch/x86/kernel/unwind_orc.c, which knows the address 0 alone, and does not look whether a
call led there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.base.sizes import U64
from orcdbg.kernel.names import Location
from orcdbg.patches.code import Code
from orcdbg.unwind.frame import Registers
from orcdbg.x86.branches import indirect_target, target_of
from orcdbg.x86.instructions import Outlined, outline
from orcdbg.x86.operands import register_in, split_operands

MAX_FUNCTION = 1 << 16  # bytes: a symbol table may claim one of any size
# RETPOLINE_THUNK_SIZE, arch/x86/include/asm/nospec-branch.h: 32 bytes, and 64 with the copies for call depth tracking.
# Thunks of all registers may lie behind each other under one symbol, so that no more than one is looked at.
_THUNK_BYTES = 32
_THUNK = re.compile(r"__x86_indirect_\w*thunk")
_ON_TOP = "(%rsp)"


class NoCode:
    """Answers for addresses without code.

    Args:
        code: the kernel, whose text and memory tell where a pointer was taken from.
    """

    def __init__(self, code: Code) -> None:
        self._code = code

    def was_called(self, ip: int, registers: Registers) -> bool | None:
        """Whether the call behind which the word on top of the stack points led to `ip`, as `_by_call` has it."""
        try:
            word = read_u64(self._code.memory, registers["rsp"].value)
        except MemoryFault:
            return False
        if not self._code.is_text(word - 1) or self._code.follows_call(word) is not True:
            return False
        return self._by_call(ip, registers, word)

    def _by_call(self, ip: int, registers: Registers, return_address: int) -> bool | None:
        """Whether the call that ends at `return_address`, or a jump at its target, led to `ip`.

        Args:
            ip: where the CPU was when it saved `registers`; no instruction was run there.
            registers: by name, as far as they are known.
            return_address: what was on top of the stack then.

        Returns:
            True where the pointer of the call, or of a jump in the function that is called, still is `ip`; False where it is
            not, and where there is no call; None for an indirect call whose pointer is not known any more.
        """
        call = self._instruction_before(return_address)
        if call is None or not call.mnemonic.startswith("call"):
            return False

        target = target_of(call.operands)
        if target is None:
            return self._is_operand(call.operands, ip, registers)

        callee = self._code.locate(target)
        if callee is None or _is_thunk(callee):
            return self._by_any(self._thunk_jumps(target), ip, registers)
        # That a jump may have gone anywhere is no sign that it was taken.
        return self._by_any(self._jumps(target), ip, registers) is True

    def _by_any(self, jumps: Sequence[str], ip: int, registers: Registers) -> bool | None:
        """Whether one of these operands leads to `ip`; None where none is known to, but one may."""
        answers = [self._is_operand(operands, ip, registers) for operands in jumps]
        if True in answers:
            return True
        return None if None in answers else False

    def _instruction_before(self, address: int) -> Outlined | None:
        """The instruction of a function that ends at `address`, in the text as it is, or where that is missing as built."""
        place = self._code.locate(address - 1)
        if place is None or not place.is_text or not 0 < place.size <= MAX_FUNCTION:
            return None
        for text in (self._code.as_run, self._code.as_linked):
            try:
                data = text.read(place.start, address - place.start)
            except MemoryFault:
                continue
            last = None
            for fields in outline(data, place.start):
                last = Outlined(*fields)
            return last if last is not None and last.end == address else None
        return None

    def _jumps(self, start: int) -> list[str]:
        """Operands of the indirect jumps out of a function that is entered at `start`, through thunks or not."""
        operands = []
        for insn in self._function(start):
            if not _is_jump(insn):
                continue
            target = target_of(insn.operands)
            if target is None:
                operands.append(insn.operands)
            elif _is_thunk(self._code.locate(target)):
                operands += self._thunk_jumps(target)
        return operands

    def _thunk_jumps(self, start: int) -> list[str]:
        """The same of a retpoline thunk, which jumps by a return, or of one that is not named, as those against ITS are."""
        operands = []
        for insn in self._function(start):
            if _is_jump(insn) and target_of(insn.operands) is None:
                operands.append(insn.operands)
            pushed = _put_on_top(insn)
            if pushed is not None:
                operands.append(f"*%{pushed}")
        return operands

    def _function(self, start: int) -> list[Outlined]:
        """Instructions from `start` to the end of its function; of a thunk its own alone."""
        place = self._code.locate(start)
        if place is None or _is_thunk(place):
            size = _THUNK_BYTES
        else:
            size = place.start + place.size - start if place.size <= MAX_FUNCTION else 0

        data = _first(self._code.as_run, self._code.as_linked, start, size)
        return [Outlined(*fields) for fields in outline(data, start)]

    def _is_operand(self, operands: str, ip: int, registers: Registers) -> bool | None:
        """Whether an indirect branch with these operands leads to `ip`; None where what it takes is not known."""
        taken = indirect_target(operands)
        if taken is None:
            return None

        name = taken.register if taken.memory is None else taken.memory.base
        value = registers.get(name or "")
        if value is None:
            return None
        if taken.memory is None:
            return value.value == ip
        try:
            return read_u64(self._code.memory, value.value + taken.memory.offset & U64) == ip
        except MemoryFault:
            return None


def _first(text: AddressSpace, other: AddressSpace, start: int, size: int) -> bytes:
    """Bytes of the first text that has them."""
    for space in (text, other):
        try:
            return space.read(start, size)
        except MemoryFault:
            continue
    return b""


def _is_thunk(place: Location | None) -> bool:
    """True for an indirect-branch thunk; see orc/rules/thunks.py, which knows return thunks too."""
    return place is not None and _THUNK.match(place.symbol) is not None


def _is_jump(insn: Outlined) -> bool:
    """True for a jump that is always taken; `notrack` and `bnd` may stand before the word."""
    return insn.mnemonic.rpartition(" ")[2].startswith("jmp")


def _put_on_top(insn: Outlined) -> str | None:
    """The register of `mov %rax, (%rsp)`, by which a retpoline tells its return where to go."""
    operands = split_operands(insn.operands)
    if not insn.mnemonic.startswith("mov") or len(operands) != 2 or operands[1] != _ON_TOP:
        return None
    return register_in(operands[0])
