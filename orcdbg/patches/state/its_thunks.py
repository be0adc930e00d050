"""Where are the thunks that indirect branches in the lower half of a cache line go through (indirect target selection)?

Mirrors its_allocate_thunk() in arch/x86/kernel/alternative.c. Each site got a thunk of its own on pages that no table
records once the boot is over, so a thunk is looked up through the branch that leads to it, and believed when it lies in an
upper half and holds the jump that the site was built for.
"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, signed
from orcdbg.patches.site import Undecidable


class ItsThunks:
    """The thunks of one machine; `memory` is its kernel virtual memory."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory

    def find(self, branch: int, register: int) -> int:
        """The thunk of the five-byte branch at an address, for a jump through a register (0 rax to 15 r15).

        Raises:
            Undecidable: there is none, or the snapshot lacks it.
        """
        wanted = (b"\x41" if register >= 8 else b"") + bytes((0xFF, 0xE0 + (register & 7), 0xCC))
        try:
            operand = self._memory.read(branch + 1, 4)
            thunk = branch + 5 + signed(int.from_bytes(operand, "little"), 32)
            found = self._memory.read(thunk, len(wanted))
        except MemoryFault as error:
            raise Undecidable(f"the ITS thunk of {branch:#x}: {error}") from error
        if found != wanted or not thunk & 0x20:
            raise Undecidable(f"the branch at {branch:#x} leads to no ITS thunk")
        return thunk
