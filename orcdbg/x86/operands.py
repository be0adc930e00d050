"""What does an operand in AT&T syntax name: a register, or a place in memory that counts from one?"""

from __future__ import annotations

import re
from typing import NamedTuple

_MEMORY = re.compile(r"(-?(?:0x[0-9a-f]+|\d+))?\(%(\w+)\)")
_COMMA = re.compile(r",(?![^(]*\))")


class BasedMemory(NamedTuple):
    """Memory at `offset` bytes from what a register holds, without index or segment: `offset(%base)`."""

    base: str
    offset: int


def split_operands(operands: str) -> list[str]:
    """The operands of an instruction, sources first; commas inside parentheses do not count."""
    return [part.strip() for part in _COMMA.split(operands)] if operands else []


def register_in(operand: str) -> str | None:
    """The register that an operand is; None for memory, a number, or an indirect call's `*`."""
    return operand[1:] if operand[:1] == "%" and operand[1:].isalnum() else None


def memory_in(operand: str) -> BasedMemory | None:
    """The memory that an operand is; None for a register, a number, and for memory with an index, a segment or no base."""
    found = _MEMORY.fullmatch(operand)
    return None if found is None else BasedMemory(found[2], int(found[1] or "0", 0))
