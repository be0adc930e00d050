"""Where does the kernel's entry code run ahead of its ORC rows?

error_entry and paranoid_entry build a pt_regs around their own return address: they take the address into rsi, put rdi
where it was, and push it again when all registers are saved. In between the rows of 5.10 look for it where rdi is, later
ones leave the caller out; and to the caller the rows say that the stack is as before the call, though all registers lie on
it.

`call error_entry; mov %rax,%rsp` is an alternative since 6.0, and its row describes the state before the call at both
instructions. But error_entry comes back with a whole pt_regs pushed, whose address is in rax: an NMI or a stopped CPU at
the `mov` finds nothing where the row points. Found in the lab by stepping (6.1, 6.12, 7.2).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import U64, AddressSpace, signed
from orcdbg.orc.rows import OrcRow
from orcdbg.x86.decode import decode

_NAMES = ("error_entry", "paranoid_entry")
WHY_SAVED = "the row describes the state before the call, and all registers have been saved since"
WHY_MOVED = "the return address is in rsi here, until all registers are saved"
WHY_R12 = "the return address is in r12 here; the registers are all saved"
UNKNOWN_CALLER = "who called error_entry is in r12, which is not known here: that caller is left out"
NOT_FOLLOWED = "the text of this function is missing or unknown: its caller may be left out"
WHY_CALLED = "the row leaves out who called this function; the return address is right below the saved registers"
REGISTERS_AT_SP = OrcRow("sp", 0, "undefined", 0, "regs", True)
RETURN_ADDRESS = OrcRow("sp", 0, "undefined", 0, "call", False)
WHY = "the row describes the state before error_entry returned; rax holds the address of the registers it saved"
REGISTERS_AT_RAX = OrcRow("ax", 0, "undefined", 0, "regs", True)
_OVERWRITE = bytes.fromhex("48897c2408")  # mov %rdi,8(%rsp): the return address is in rsi from here on
_PUSH_AGAIN = b"\x56"  # push %rsi
_POP_R12, _PUSH_R12 = b"\x41\x5c", b"\x41\x54"
_SIZE = 1 << 9  # no longer than this
_WINDOW = 64  # bytes from error_entry on in which both stand
_MOVE = b"\x48\x89\xc4"  # mov %rax,%rsp


def saving_functions(find_address: Callable[[str], int | None]) -> list[int]:
    """Where the functions are that save all registers around their own return address."""
    return [address for name in _NAMES if (address := find_address(name)) is not None]


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
        found = [one for start, one in self._all.items() if start <= address < start + _SIZE]
        return found[-1] if found else None

    def is_early(self, ip: int) -> bool:
        """True at the instructions of one before the registers are all saved, where the caller's rows still hold."""
        return any(one.is_early(ip) for one in self._all.values())

    def called_before(self, return_address: int) -> SavingFunction | None:
        """The one that the call which ends at `return_address` calls."""
        try:
            code = self._text.read(return_address - 5, 5)
        except MemoryFault:
            return None
        target = return_address + signed(int.from_bytes(code[1:], "little"), 32) & U64
        return self._all.get(target) if code[0] == 0xE8 else None

    def is_taken_from_rax(self, ip: int) -> bool:
        """True at the instruction that takes error_entry's result as the stack pointer."""
        if self.called_before(ip) is None:
            return False
        try:
            return self._text.read(ip, len(_MOVE)) == _MOVE
        except MemoryFault:
            return False


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
    def _moved(self) -> dict[int, int]:
        """Boundaries at which rsi has the return address: bytes from the stack pointer there to that before the call."""
        try:
            code = self._text.read(self.start, _WINDOW)
        except MemoryFault:
            return {}
        found: dict[int, int] = {}
        depth, is_moved = 8, False
        for insn in decode(code, self.start):
            if is_moved:
                found[insn.address] = depth
                if insn.raw == _PUSH_AGAIN:
                    return found
            if insn.sp_change is None:
                return {}
            depth += insn.sp_change
            is_moved = is_moved or insn.raw == _OVERWRITE
        return {}

    def is_unknown(self, address: int) -> bool:
        """True where the function may be, and its text does not show how it keeps its return address."""
        return not self._moved and self.start <= address < self.start + _SIZE

    def moved(self, ip: int) -> int | None:
        """Bytes from the stack pointer at `ip` to its caller's, where the return address is in rsi; else None."""
        return self._moved.get(ip)

    @functools.cached_property
    def _in_r12(self) -> tuple[range, ...]:
        """Stretches at whose boundaries r12 has the return address, and the saved registers are on top of the stack."""
        try:
            code = self._text.read(self.start, _SIZE)
        except MemoryFault:
            return ()
        found, begin = [], code.find(_POP_R12)
        while begin >= 0 and (end := code.find(_PUSH_R12, begin)) >= 0:
            found.append(range(self.start + begin + len(_POP_R12), self.start + end + 1))
            begin = code.find(_POP_R12, end)
        return tuple(found)

    def is_in_r12(self, address: int, row: OrcRow) -> bool:
        """True where 5.10 keeps the return address in r12, while the registers are moved to the task's stack."""
        is_on_top = row.type == "regs" and (row.sp_reg, row.sp_offset) == ("sp", 0)
        return is_on_top and any(address in stretch for stretch in self._in_r12)

    def is_early(self, ip: int) -> bool:
        """True at the instructions before the registers are all saved, where the caller's rows still hold."""
        return bool(self._moved) and self.start <= ip <= max(self._moved)

    def has_saved(self, address: int, row: OrcRow) -> bool:
        """True where the row tells of saved registers right above the return address; the function's end is not looked for."""
        near = bool(self._moved) and max(self._moved) < address < self.start + _SIZE
        return near and row.type == "regs" and (row.sp_reg, row.sp_offset) == ("sp", 8)
