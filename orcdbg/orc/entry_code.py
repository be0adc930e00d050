"""Where does the kernel's entry code run ahead of its ORC rows?

`call error_entry; mov %rax,%rsp` is an alternative since 6.0, and its row describes the state before the call at both
instructions. But error_entry comes back with a whole pt_regs pushed, whose address is in rax: an NMI or a stopped CPU at
the `mov` finds nothing where the row points. Found in the lab by stepping (6.1, 6.12, 7.2).
"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import U64, AddressSpace, signed
from orcdbg.orc.rows import OrcRow

WHY = "the row describes the state before error_entry returned; rax holds the address of the registers it saved"
REGISTERS_AT_RAX = OrcRow("ax", 0, "undefined", 0, "regs", True)
_MOVE = b"\x48\x89\xc4"  # mov %rax,%rsp


def is_after_error_entry(ip: int, text: AddressSpace, error_entry: int | None) -> bool:
    """True at the instruction that takes error_entry's result as the stack pointer."""
    if error_entry is None:
        return False
    try:
        code = text.read(ip - 5, 8)
    except MemoryFault:
        return False
    target = ip + signed(int.from_bytes(code[1:5], "little"), 32) & U64
    return code[0] == 0xE8 and code[5:] == _MOVE and target == error_entry
