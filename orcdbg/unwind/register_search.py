"""Where on a stack may registers be saved, whoever saved them?

For stacks that no walk comes through: every place is tried, and what is found is a guess, left over from an earlier
interrupt as likely as not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import Stack
from orcdbg.unwind.frame import Registers
from orcdbg.unwind.scan import Scan
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

_CS, _FLAGS = PT_REGS["cs"] // 8, PT_REGS["rflags"] // 8
_SELECTORS = (0x10, 0x23, 0x33)


@dataclass(frozen=True, slots=True)
class SavedSet:
    """What looks like a `struct pt_regs`: where, on which stack, and the registers; `location` is of a kernel's rip."""

    address: int
    stack: Stack
    registers: Registers
    location: Location | None
    is_user: bool


def hunt(memory: AddressSpace, scan: Scan, stack: Stack) -> Iterator[SavedSet]:
    """Every place of a stack where a whole pt_regs may lie, in order of address."""
    for begin, data in _pieces(memory, stack):
        words = np.frombuffer(data, dtype="<u8")
        places = len(words) - PT_REGS_SIZE // 8 + 1
        if places <= 0:
            continue
        selectors = words[_CS : _CS + places] & np.uint64(0xFFFF)
        likely = np.isin(selectors, np.array(_SELECTORS, dtype=np.uint64))
        likely &= words[_FLAGS : _FLAGS + places] >> np.uint64(22) == 0
        for index in np.flatnonzero(likely).tolist():
            address = begin + 8 * int(index)
            state = scan.saved(address, stack)
            if state is not None:
                user = state.registers["cs"].value & 3 == 3
                place = None if user else scan.locate(state.ip)
                yield SavedSet(address, stack, state.registers, place, user)


def _pieces(memory: AddressSpace, stack: Stack) -> Iterator[tuple[int, bytes]]:
    """The stretches of a stack that are in the snapshot."""
    begin, data = stack.begin, b""
    for at in range(stack.begin, stack.end, PAGE):
        try:
            data += memory.read(at, min(PAGE, stack.end - at))
        except MemoryFault:
            if data:
                yield begin, data
            begin, data = at + PAGE, b""
    if data:
        yield begin, data
