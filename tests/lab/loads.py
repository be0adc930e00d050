"""Which words of memory does an instruction read? So that a comparison of two CPUs that fails can name them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from orcdbg.base.sizes import U64


class Load(NamedTuple):
    """Memory that an instruction reads: `size` bytes at a virtual address.

    Attributes:
        may_write: it may write there too, or only that.
    """

    address: int
    size: int
    may_write: bool = False


@functools.cache
def _decoder() -> Any:
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    return engine


def loads(raw: bytes, registers: Mapping[str, int], gs_base: int) -> list[Load]:
    """The memory that an instruction reads, also what it pops; none for an instruction that capstone does not know.

    Args:
        raw: its bytes.
        registers: before it.
        gs_base: what `%gs:` counts from.
    """
    import capstone
    from capstone import x86, x86_const

    insn = next(_decoder().disasm(raw, registers["rip"], 1), None)
    if insn is None:
        return []

    # lea and nop have an operand in memory and read none. Capstone 5 says of some that read that they only write (lock inc).
    reads_none = insn.id in (x86_const.X86_INS_LEA, x86_const.X86_INS_NOP)
    operands = [] if reads_none else [operand for operand in insn.operands if operand.type == x86.X86_OP_MEM]
    places = [
        (_address(insn, operand.mem, registers, gs_base), operand.size, operand.access != capstone.CS_AC_READ)
        for operand in operands
    ]

    if insn.id in (x86_const.X86_INS_POP, x86_const.X86_INS_POPFQ, x86_const.X86_INS_RET):
        places.append((registers["rsp"], 8, False))
    if insn.id == x86_const.X86_INS_LEAVE:
        places.append((registers["rbp"], 8, False))

    return [Load(address, size, may_write) for address, size, may_write in places if address is not None]


def _address(insn: Any, memory: Any, registers: Mapping[str, int], gs_base: int) -> int | None:
    """Where an operand in memory is; None where a register that it is counted from is not known."""
    values = {**registers, "rip": insn.address + insn.size, "riz": 0}  # riz stands for no index
    address = memory.disp
    for number, factor in ((memory.base, 1), (memory.index, memory.scale)):
        if not number:
            continue
        value = values.get(insn.reg_name(number))
        if value is None:
            return None
        address += factor * value

    is_of_cpu = memory.segment and insn.reg_name(memory.segment) == "gs"
    return int(address + (gs_base if is_of_cpu else 0)) & U64
