"""Where is a caller's value of each callee-saved register, behind one more instruction of the function that it called?

A value is in the register itself until that is written, and in each slot that it was pushed or moved to, until something
else is stored there or the stack pointer moves above it. A slot is named by its offset from the CFA, so that it keeps its
name however the stack pointer moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from orcdbg.x86.instructions import Instruction, written_registers
from orcdbg.x86.operands import memory_in, register_in, split_operands
from orcdbg.x86.registers import CALLEE_SAVED

Places = frozenset[int]
"""Where one caller's value is: IN_REGISTER, and slots by their offset from the CFA, which is negative."""

IN_REGISTER = 0

_NOWHERE: Places = frozenset()
_POSITION = {name: number for number, name in enumerate(CALLEE_SAVED)}
_SAVED = frozenset(CALLEE_SAVED)
_WORD = 8

# Bytes that an instruction with a destination in memory writes there.
_SUFFIX_SIZES = {"b": 1, "w": 2, "l": 4, "q": 8}
_SIZED = re.compile(
    r"(?:lock )?(?:mov|add|adc|sub|sbb|and|or|xor|inc|dec|neg|not|xchg|xadd|cmpxchg|sh[lr]|sa[lr]|ro[lr])([bwlq])"
)
_BIT = re.compile(r"(?:lock )?bt[src]([wlq])")
_SET = re.compile(r"setn?(?:[abglopsez]|[abgl]e|[cp]|p[eo])")
_OTHER_SIZES = {"sgdt": 10, "sidt": 10, "movaps": 16, "movups": 16, "movdqa": 16, "movdqu": 16, "stmxcsr": 4}
_MORE_THAN_ANY_FRAME = 1 << 31
# Instructions whose one or last operand in memory is only read.
_NO_STORE = re.compile(
    r"(?:cmp|test|bt|push|call|i?mul|i?div)[bwlq]?|(?:jmp|nop|lea|prefetch|fld|fild|lgdt|lidt|verw|ldmxcsr|invlpg|clflush).*"
)


class CallerRegisters(NamedTuple):
    """What is known before an instruction of a function.

    `depth` is the CFA less rsp and `frame` the CFA less rbp, in bytes, None where it is not known; `places` are in the order
    of CALLEE_SAVED.
    """

    depth: int | None
    frame: int | None
    places: tuple[Places, ...]

    def meet(self, other: CallerRegisters) -> CallerRegisters:
        """What both know."""
        return CallerRegisters(
            self.depth if self.depth == other.depth else None,
            self.frame if self.frame == other.frame else None,
            tuple(mine & theirs for mine, theirs in zip(self.places, other.places, strict=True)),
        )

    def after(self, insn: Instruction) -> CallerRegisters:
        """What is known behind an instruction. A call comes back with stack and registers as they were."""
        return _Step(insn, self).after()


AT_ENTRY = CallerRegisters(_WORD, None, (frozenset((IN_REGISTER,)),) * len(CALLEE_SAVED))
"""At a function's first instruction: the return address is on top of the stack, and nothing was touched."""


class _Step:
    """One instruction on its way through a state."""

    def __init__(self, insn: Instruction, known: CallerRegisters) -> None:
        self._insn = insn
        self._name = insn.mnemonic.removesuffix("q")
        self._operands = split_operands(insn.operands)
        self._depth, self._frame = known.depth, known.frame
        self._places = list(known.places)

    def after(self) -> CallerRegisters:
        """The state behind the instruction."""
        if self._name == "push":
            self._push()
        elif self._name == "pop" and self._saved(0):
            self._pop(self._saved(0))
        elif self._name == "leave":
            self._depth, self._frame = self._frame, None
            self._pop("rbp")
        elif not self._insn.is_call:
            self._other()

        depth = self._depth
        if depth is not None:
            # What is below the stack pointer may be overwritten at any time.
            self._forget(lambda slot: slot < -depth)
        return CallerRegisters(self._depth, self._frame, tuple(self._places))

    def _saved(self, index: int) -> str:
        """An operand that is a callee-saved register; empty for any other."""
        operands = self._operands
        name = register_in(operands[index]) if -len(operands) <= index < len(operands) else None
        return name if name is not None and name in _SAVED else ""

    def _operand(self, index: int) -> str:
        """An operand; empty where there is none."""
        return self._operands[index] if self._operands else ""

    def _slot(self, operand: str) -> int | None:
        """A memory operand's offset from the CFA; None where that is not known."""
        memory = memory_in(operand)
        if memory is None:
            return None
        base = {"rsp": self._depth, "rbp": self._frame}.get(memory.base)
        return None if base is None else memory.offset - base

    def _forget(self, is_lost: Callable[[int], bool]) -> None:
        """Slots that no longer hold what they held."""
        for number, held in enumerate(self._places):
            # Most instructions cost no slot: then the state keeps the sets that it has, without new ones being made.
            if any(place != IN_REGISTER and is_lost(place) for place in held):
                self._places[number] = frozenset(p for p in held if p == IN_REGISTER or not is_lost(p))

    def _store(self, slot: int, register: str, size: int = _WORD) -> None:
        """`size` bytes are written to a slot, from a callee-saved register or, where that is empty, from elsewhere."""
        self._forget(lambda other: slot - _WORD < other < slot + size)
        if not register or size != _WORD:
            return
        number = _POSITION[register]
        if IN_REGISTER in self._places[number]:
            self._places[number] |= {slot}

    def _load(self, slot: int | None, register: str) -> None:
        """A callee-saved register is written: from a slot, or with something else where `slot` is None."""
        number = _POSITION[register]
        held = self._places[number] - {IN_REGISTER}
        self._places[number] = held | {IN_REGISTER} if slot in held else held
        if register == "rbp":
            self._frame = None

    def _push(self) -> None:
        if self._insn.sp_change is None or self._depth is None:
            self._depth = None
            return
        self._depth += self._insn.sp_change
        self._store(-self._depth, self._saved(0))

    def _pop(self, register: str) -> None:
        self._load(None if self._depth is None else -self._depth, register)
        self._depth = None if self._depth is None else self._depth - _WORD

    def _other(self) -> None:
        """Any instruction that is not made for the stack."""
        written = written_registers(self._insn.raw)
        if written is None:
            self._depth = self._frame = None
            self._places = [_NOWHERE] * len(CALLEE_SAVED)
            return

        first, last = self._operand(0), self._operand(-1)
        slot = self._slot(last)
        if slot is not None and not _NO_STORE.fullmatch(self._name):
            self._store(slot, self._saved(0) if self._name == "mov" else "", _stored(self._insn.mnemonic, first))

        target, source = self._saved(-1), self._slot(first)
        if self._name == "mov" and target and source is not None:
            self._load(source, target)
            return

        for register in written & _SAVED:
            self._load(None, register)
        if "rbp" in written and (self._name, first, last) == ("mov", "%rsp", "%rbp"):
            self._frame = self._depth
        if "rsp" in written:
            self._depth = self._moved_depth(first)

    def _moved_depth(self, first: str) -> int | None:
        """The depth behind an instruction that writes rsp, from its `first` operand."""
        change = self._insn.sp_change
        if change is not None:
            return None if self._depth is None else self._depth + change
        if (self._name, first) == ("mov", "%rbp"):
            return self._frame
        slot = self._slot(first) if self._name == "lea" else None
        return None if slot is None else -slot


def _stored(mnemonic: str, first: str) -> int:
    """Bytes that an instruction with a destination in memory writes, at most: more than any frame has where not known.

    `first` is its first operand: a bit's number in a register may be that of a bit far from the operand in memory.
    """
    found = _SIZED.fullmatch(mnemonic) or (_BIT.fullmatch(mnemonic) if first.startswith("$") else None)
    if found is not None:
        return _SUFFIX_SIZES[found[1]]
    if _SET.fullmatch(mnemonic):
        return 1
    return _OTHER_SIZES.get(mnemonic.removesuffix("q"), _MORE_THAN_ANY_FRAME)
