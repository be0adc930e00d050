"""Which rules hold in error_entry and paranoid_entry, whose ORC rows have no place for the caller?

These two are called "saving functions" here. They build a pt_regs around their own return address: they take the address
into rsi, put rdi where it was, and push it again when all registers are saved. In between the rows of 5.10 look for it where
rdi is, later ones leave the caller out; and to the caller the rows say that the stack is as before the call, though all
registers lie on it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.linux import Linux
from orcdbg.orc.cfa import sp_rule
from orcdbg.orc.effective import AsBuilt, Derived, Effective, Source
from orcdbg.orc.reasons import (
    CallerInUnknownRegister,
    CallerLeftOut,
    RegistersSavedSince,
    ReturnAddressInRegister,
    SavingFunctionUnknown,
)
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.source import Lookup
from orcdbg.x86.branches import direct_call_target
from orcdbg.x86.follow import straight
from orcdbg.x86.instructions import Instruction

_NAMES = ("error_entry", "paranoid_entry")
_REGISTERS_AT_SP = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True)
_RETURN_ADDRESS = OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.CALL, False)
_OVERWRITE = bytes.fromhex("48897c2408")  # mov %rdi,8(%rsp): the return address is in rsi from here on
_PUSH_AGAIN = b"\x56"  # push %rsi
_POP_R12, _PUSH_R12 = b"\x41\x5c", b"\x41\x54"
_SIZE = 1 << 9  # bytes that neither function is longer than
_WINDOW = 64  # bytes from error_entry on in which both stand
_MOVE = b"\x48\x89\xc4"  # mov %rax,%rsp


def saving_functions(linux: Linux) -> list[int]:
    """Where the functions are that save all registers around their own return address."""
    return [address for name in _NAMES if (address := linux.find_address(name)) is not None]


class SavingFunctions:
    """Functions that save all registers around their own return address.

    Args:
        starts: where they are.
        text: text as it was in memory.
    """

    def __init__(self, starts: Sequence[int], text: AddressSpace) -> None:
        self._all = {start: SavingFunction(start, text) for start in sorted(starts)}
        self._text = text

    def near(self, address: int) -> SavingFunction | None:
        """The one that `address` may be in: the function's end is not looked for."""
        before = [function for start, function in self._all.items() if start <= address < start + _SIZE]
        return before[-1] if before else None

    def is_early(self, ip: int) -> bool:
        """True at the instructions of one before the registers are all saved, where the caller's rows still hold."""
        return any(function.is_early(ip) for function in self._all.values())

    def called_before(self, return_address: int) -> SavingFunction | None:
        """The one that the call which ends at `return_address` calls."""
        target = direct_call_target(self._text, return_address)
        return None if target is None else self._all.get(target)

    def is_taken_from_rax(self, ip: int) -> bool:
        """True at the instruction that takes error_entry's result as the stack pointer."""
        if self.called_before(ip) is None:
            return False
        try:
            return self._text.read(ip, len(_MOVE)) == _MOVE
        except MemoryFault:
            return False


class _Saving(NamedTuple):
    """What is known inside a saving function before an instruction.

    `depth` are the bytes from the stack pointer to the caller's, None where they are not known. The return address has moved
    to rsi once `is_moved`, and is on the stack again once `is_back`.
    """

    depth: int | None
    is_moved: bool
    is_back: bool


def _after(state: _Saving, insn: Instruction) -> _Saving:
    depth = None if state.depth is None or insn.sp_change is None else state.depth + insn.sp_change
    is_back = state.is_back or (state.is_moved and insn.raw == _PUSH_AGAIN)
    return _Saving(depth, state.is_moved or insn.raw == _OVERWRITE, is_back)


class SavingFunction:
    """The first instructions of one.

    Args:
        start: where it is.
        text: text as it was in memory.
    """

    def __init__(self, start: int, text: AddressSpace) -> None:
        self.start = start
        self._text = text

    @functools.cached_property
    def _depths_while_in_rsi(self) -> dict[int, int]:
        """Boundaries at which rsi has the return address: bytes from the stack pointer there to that before the call."""
        try:
            code = self._text.read(self.start, _WINDOW)
        except MemoryFault:
            return {}

        depths: dict[int, int] = {}
        for address, state in straight(code, self.start, _Saving(8, False, False), _after):
            if state.is_back:
                return depths
            if state.depth is None:
                return {}
            if state.is_moved:
                depths[address] = state.depth
        return {}

    @property
    def pushes(self) -> bool:
        """True where it pushes the registers around its return address, False where the caller made room for them."""
        return bool(self._depths_while_in_rsi)

    def is_unknown(self, address: int) -> bool:
        """True where the function may be, and its text does not show how it keeps its return address."""
        return not self._depths_while_in_rsi and self.start <= address < self.start + _SIZE

    def depth_while_in_rsi(self, ip: int) -> int | None:
        """Bytes from the stack pointer at `ip` to its caller's, where the return address is in rsi; else None."""
        return self._depths_while_in_rsi.get(ip)

    @functools.cached_property
    def _in_r12(self) -> tuple[range, ...]:
        """Stretches at whose boundaries r12 has the return address, and the saved registers are on top of the stack."""
        try:
            code = self._text.read(self.start, _SIZE)
        except MemoryFault:
            return ()

        stretches, begin = [], code.find(_POP_R12)
        while begin >= 0 and (end := code.find(_PUSH_R12, begin)) >= 0:
            stretches.append(range(self.start + begin + len(_POP_R12), self.start + end + 1))
            begin = code.find(_POP_R12, end)
        return tuple(stretches)

    def is_in_r12(self, address: int, row: OrcRow) -> bool:
        """True where 5.10 keeps the return address in r12, while the registers are moved to the task's stack."""
        return _saves_registers_at(row, 0) and any(address in stretch for stretch in self._in_r12)

    def is_early(self, ip: int) -> bool:
        """True at the instructions before the registers are all saved, where the caller's rows still hold."""
        return bool(self._depths_while_in_rsi) and self.start <= ip <= max(self._depths_while_in_rsi)

    def has_saved(self, address: int, row: OrcRow) -> bool:
        """True where the row tells of saved registers right above the return address; the function's end is not looked for."""
        near = bool(self._depths_while_in_rsi) and max(self._depths_while_in_rsi) < address < self.start + _SIZE
        return near and _saves_registers_at(row, 8)


def _saves_registers_at(row: OrcRow, offset: int) -> bool:
    """True for a row of a whole pt_regs that many bytes above the stack pointer."""
    return row.type is RowType.REGS and row.sp_reg is OrcRegister.SP and row.sp_offset == offset


class InsideSavingFunctions:
    """The rules in error_entry and its like, whose rows have no place for the caller.

    Args:
        saving: these functions.
    """

    def __init__(self, saving: SavingFunctions) -> None:
        self._saving = saving

    def at(self, lookup: Lookup) -> Effective | None:
        """The caller's place: a register, right below the saved registers, or not known."""
        address, entry, rule = lookup.address, lookup.entry, lookup.rule
        function = self._saving.near(address)
        if function is None or entry is None:
            return None

        depth = function.depth_while_in_rsi(lookup.ip) if lookup.exact else None
        if depth is not None:
            return Derived(
                entry=entry,
                rule=sp_rule(depth),
                row=_RETURN_ADDRESS,
                reason=ReturnAddressInRegister("rsi", are_all_saved=False),
                source=Source.TRAMPOLINE,
                instructions=("mov %rdi,8(%rsp)",),
                return_register="rsi",
            )

        is_in_r12 = function.is_in_r12(address, entry.row)
        is_unknown = function.is_unknown(address) and entry.row.type is not RowType.CALL
        if not (is_unknown or is_in_r12 or function.has_saved(address, entry.row)):
            return None

        # The function's end was not looked for: what is behind it has rules of its own.
        place = lookup.location
        if place is None or place.start != function.start:
            return None

        if is_unknown:
            return AsBuilt(entry, rule, doubt=SavingFunctionUnknown())
        if rule is None:
            return None  # no row of saved registers is without one
        if not is_in_r12:
            return Derived(entry, rule, _RETURN_ADDRESS, CallerLeftOut(), Source.TRAMPOLINE, ("push %rsi",))
        if not lookup.exact:
            return AsBuilt(entry, rule, doubt=CallerInUnknownRegister())
        return Derived(
            entry=entry,
            rule=rule,
            row=_RETURN_ADDRESS,
            reason=ReturnAddressInRegister("r12", are_all_saved=True),
            source=Source.TRAMPOLINE,
            instructions=("pop %r12",),
            return_register="r12",
        )


def rule_of_caller_after_saving(effective: Effective) -> Derived:
    """The rule of the caller of error_entry and its like, once they have saved all registers: these lie at rsp."""
    return Derived(
        entry=effective.entry,
        rule=sp_rule(0),
        row=_REGISTERS_AT_SP,
        reason=RegistersSavedSince(),
        source=Source.TRAMPOLINE,
        instructions=("call",),
    )
