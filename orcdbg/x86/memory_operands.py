"""Which memory does an instruction read or write, in terms of registers?

`operands.py` reads what is written; this asks the decoder, which also knows sizes, and which side an operand is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from orcdbg.base.sizes import U64
from orcdbg.x86.instructions import operand_details

# rsp and rbp apart, what a function's integer arguments come in, in order (System V ABI, x86-64).
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")


class MemoryOperand(NamedTuple):
    """Memory at `segment: base + times * scale + displacement`; a part that is missing is None.

    `base` is `rip` where the operand counts from the next instruction. An operand that is neither read nor written, as that of
    `lea`, has neither flag.
    """

    base: str | None
    times: str | None
    scale: int
    displacement: int
    segment: str | None
    size: int
    is_read: bool
    is_written: bool

    def address(self, registers: Mapping[str, int], end: int) -> int | None:
        """Where it is.

        Args:
            registers: values before the instruction, `gs` and `fs` their bases.
            end: of the instruction.

        Returns:
            None where a register of it is not known.
        """
        total = self.displacement
        for name, factor in ((self.base, 1), (self.times, self.scale), (self.segment, 1)):
            if name is None:
                continue
            value = end if name == "rip" else registers.get(name)
            if value is None:
                return None
            total += value * factor
        return total & U64


def memory_operands(raw: bytes, address: int) -> Iterator[MemoryOperand]:
    """The memory operands of the instruction at the start of `raw`: those that are written down, and the stack is not."""
    for operand in operand_details(raw, address):
        yield MemoryOperand(*operand)
