"""Which call ends at an address, and where does it go?

The instruction before a return address cannot be found by decoding forwards without a boundary to begin at. But a call has
few encodings, and all of them can be told from their last bytes: e8 with a distance, or ff /2 with a register or memory.
Whoever knows the function decodes from its start, and may be stricter (`unwind/judge/calls.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, signed
from orcdbg.base.sizes import U64
from orcdbg.x86.operands import BasedMemory, memory_in, register_in

INT3 = b"\xcc"
ENDBR64 = b"\xf3\x0f\x1e\xfa"  # where indirect branches may land
CALL_SIZE = 5
"""Bytes of a direct call."""

LONGEST_CALL = 8
"""Bytes before a return address that are enough to see any call: ff /2 with an SIB byte and four of displacement, a prefix."""

_CALL = 0xE8
_GROUP_5, _CALL_NEAR = 0xFF, 2  # ff /2
_REGISTER_MODE = 3
_HAS_SIB = 4  # in the ModRM byte's rm, where that names no register
_NO_BASE = 5  # there or in the SIB byte's base: four bytes of displacement instead, where mod is 0
_DISPLACEMENT = {0: 0, 1: 1, 2: 4, _REGISTER_MODE: 0}  # bytes, by the ModRM byte's mod


class CallBefore(NamedTuple):
    """A call: `size` bytes without prefixes, and its `target` where it is a direct one, else None."""

    size: int
    target: int | None


def _indirect_size(modrm: int, sib: int) -> int:
    """Bytes of `ff /2` with that ModRM byte, prefixes not counted."""
    mod, rm = modrm >> 6, modrm & 7
    size = 2 + _DISPLACEMENT[mod]
    if mod != _REGISTER_MODE and rm == _HAS_SIB:
        size += 1
        rm = sib & 7
    return size + 4 if mod == 0 and rm == _NO_BASE else size


def calls_before(code: bytes, address: int) -> Iterator[CallBefore]:
    """The calls that the bytes before `address` may be, the direct one first.

    Args:
        code: at least the two bytes before `address`; LONGEST_CALL of them make the answer whole.
        address: where the call would return to.

    Bytes may happen to look like a call without being one: what is said here is that nothing speaks against it.
    """
    if len(code) >= CALL_SIZE and code[-CALL_SIZE] == _CALL:
        distance = signed(int.from_bytes(code[-4:], "little"), 32)
        yield CallBefore(CALL_SIZE, address + distance & U64)

    for size in range(2, min(len(code), LONGEST_CALL - 1) + 1):
        opcode, modrm = code[-size], code[1 - size]
        sib = code[2 - size] if size > 2 else 0
        if opcode == _GROUP_5 and modrm >> 3 & 7 == _CALL_NEAR and _indirect_size(modrm, sib) == size:
            yield CallBefore(size, None)


def ends_with_call(code: bytes) -> bool:
    """Whether some call's encoding ends at the end of `code`, the LONGEST_CALL bytes before a return address."""
    return next(calls_before(code, 0), None) is not None


def direct_call_target(text: AddressSpace, return_address: int) -> int | None:
    """Where the direct call that ends at `return_address` goes; None where there is none, or the text is not to be had."""
    try:
        code = text.read(return_address - CALL_SIZE, CALL_SIZE)
    except MemoryFault:
        return None
    call = next(calls_before(code, return_address), None)
    return None if call is None else call.target


class IndirectTarget(NamedTuple):
    """Where an indirect call takes its target from: a `register`, or `memory`; the other is None."""

    register: str | None
    memory: BasedMemory | None


def indirect_target(operands: str) -> IndirectTarget | None:
    """What a call with these operands, in AT&T syntax, goes by; None for a direct call or memory without a plain base.

    The star may be missing, as capstone leaves it out before memory.
    """
    operand = operands.removeprefix("*")
    memory = memory_in(operand)
    register = register_in(operand) if operand != operands else None
    return None if memory is None and register is None else IndirectTarget(register, memory)


def target_of(operands: str) -> int | None:
    """Where a direct call or jump with these operands goes; None for an indirect one."""
    return int(operands, 16) if operands.startswith("0x") else None
