"""Where on a stack may registers be saved, whoever saved them?

For stacks that no walk comes through: every place is tried, and what is found is a guess, left over from an earlier
interrupt as likely as not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import stretches
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.unwind.frame import Registers
from orcdbg.unwind.no_code import NoCode
from orcdbg.unwind.saved_registers import (
    CODE_SEGMENTS,
    USER_PADDINGS,
    implausible,
    is_unlisted,
    is_user,
    may_have_users_sp,
    saved_registers,
)
from orcdbg.unwind.walker import Terrain
from orcdbg.x86.branches import INT3
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

_CS = PT_REGS["cs"] // 8
_USER_BITS = 56  # of a user's address, with five levels of page tables
_FLAG_BITS = 22


@dataclass(frozen=True, slots=True)
class SavedSet:
    """What looks like a `struct pt_regs`: where, on which stack, and the registers; `location` is of a kernel's rip."""

    address: int
    stack: Stack
    registers: Registers
    location: Location | None
    is_user: bool


class RegisterSearch:
    """Looks for registers on the stacks of one kernel.

    What a walk would go on from is found, and so is what no walk comes to; see `Walker`, whose conditions these are.

    Args:
        terrain: the kernel.
    """

    def __init__(self, terrain: Terrain) -> None:
        self._code = terrain.code
        self._calls = terrain.evidence.calls
        self._no_code = NoCode(terrain.code)

    def on(self, stack: Stack) -> Iterator[SavedSet]:
        """Every place of a stack where a whole pt_regs may lie, in order of address."""
        for begin, data in stretches(self._code.memory, stack.begin, stack.end):
            words = np.frombuffer(data, dtype="<u8")
            places = len(words) - PT_REGS_SIZE // 8 + 1
            if places <= 0:
                continue
            selectors = words[_CS : _CS + places] & np.uint64(0xFFFF)
            # Of a program's own code segments (LDT) there is any number; see `implausible`.
            is_code = np.isin(selectors, CODE_SEGMENTS) | (selectors & np.uint64(7) == np.uint64(7))
            for index in np.flatnonzero(is_code).tolist():
                address = begin + 8 * int(index)
                at = address - begin
                registers = saved_registers(data[at : at + PT_REGS_SIZE], PT_REGS, f"pt_regs {address:#x}")
                if is_user(registers):
                    if self._are_users(registers, address, stack):
                        yield SavedSet(address, stack, registers, None, True)
                elif self._are_kernels(registers):
                    yield SavedSet(address, stack, registers, self._code.locate(registers["rip"].value), False)

    def _are_users(self, registers: Registers, address: int, stack: Stack) -> bool:
        """Whether the user's registers may lie there: at the top of a task's stack with any ip and flags, as walks have it.

        Elsewhere entry code keeps them for a while, and two selectors alone are no sign.
        """
        if implausible(registers) is not None:
            return False
        if stack.kind is StackKind.TASK and stack.end - address - PT_REGS_SIZE in USER_PADDINGS:
            return True
        ip, flags = registers["rip"].value, registers["rflags"].value
        return stack.kind is not StackKind.TASK and not ip >> _USER_BITS and bool(flags & 2) and not flags >> _FLAG_BITS

    def _are_kernels(self, registers: Registers) -> bool:
        """Whether the kernel can have been interrupted with these."""
        ip = registers["rip"].value
        if implausible(registers, may_have_users_sp(self._code, ip)) is not None:
            return False
        if self._code.is_text(ip):
            return self._calls.is_boundary(ip) is not False or self._is_behind_int3(ip)
        if ip == 0 or is_unlisted(self._code, ip, exact=True):
            return True
        return self._no_code.was_called(ip, registers) is not False

    def _is_behind_int3(self, ip: int) -> bool:
        """Whether a breakpoint before the ip, in place of a longer instruction, may have saved it."""
        try:
            return self._code.memory.read(ip - 1, 1) == INT3 and self._calls.is_boundary(ip - 1) is not False
        except MemoryFault:
            return False
