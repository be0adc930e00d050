"""How does the CFA follow from the registers, written so that people and programs can read it?"""

from __future__ import annotations

import enum
from typing import NamedTuple

from orcdbg.orc.rows import OrcRegister, OrcRow


class Indirection(enum.Enum):
    """Whether the CFA is an address, or read from memory at one."""

    NONE = enum.auto()
    WORD = enum.auto()  # the word at base + offset
    BASE = enum.auto()  # the word at base, + offset


class CfaRule(NamedTuple):
    """CFA = base + offset, or what `indirection` makes of them."""

    base: OrcRegister
    offset: int
    indirection: Indirection = Indirection.NONE

    def __str__(self) -> str:
        base = self.base.value
        offset = f"{self.offset:+d}" if self.offset else ""

        if self.indirection is Indirection.WORD:
            return f"({base}{offset})"
        if self.indirection is Indirection.BASE:
            return f"({base}){offset}"
        return f"{base}{offset}"

    @property
    def is_direct(self) -> bool:
        """True where the CFA is base + offset itself."""
        return self.indirection is Indirection.NONE

    @property
    def counts_from_sp(self) -> bool:
        """True where the CFA is the stack pointer plus a constant, so that whatever is pushed moves the rule."""
        return self.base is OrcRegister.SP and self.is_direct

    @property
    def counts_from_bp(self) -> bool:
        """True where the CFA is the frame pointer plus a constant, whatever is pushed."""
        return self.base is OrcRegister.BP and self.is_direct

    def moved(self, adjust: int) -> CfaRule:
        """The rule after the stack pointer went down by `adjust` bytes; one on another base does not change."""
        return self._replace(offset=self.offset + adjust) if self.counts_from_sp else self


def sp_rule(offset: int) -> CfaRule:
    """The CFA is that many bytes above the stack pointer."""
    return CfaRule(OrcRegister.SP, offset)


def cfa_rule(row: OrcRow, sp_indirect_adds_last: bool) -> CfaRule | None:
    """The rule in an ORC row; None for a row that has none.

    Args:
        row: the entry.
        sp_indirect_adds_last: SP_INDIRECT means (word at sp) + offset, as since 5.12; before, the word at sp + offset.
    """
    if row.sp_reg is OrcRegister.SP_INDIRECT:
        return CfaRule(OrcRegister.SP, row.sp_offset, Indirection.BASE if sp_indirect_adds_last else Indirection.WORD)
    if row.sp_reg is OrcRegister.BP_INDIRECT:
        return CfaRule(OrcRegister.BP, row.sp_offset, Indirection.WORD)
    if row.sp_reg in (OrcRegister.UNDEFINED, OrcRegister.PREV_SP):
        return None
    return CfaRule(row.sp_reg, row.sp_offset)


def bp_rule(row: OrcRow) -> str:
    """How the caller's rbp follows: `same`, or the word at an offset from the CFA or from rbp."""
    if row.bp_reg is OrcRegister.PREV_SP:
        return f"(cfa{row.bp_offset:+d})"
    if row.bp_reg is OrcRegister.BP:
        return f"(bp{row.bp_offset:+d})" if row.bp_offset else "(bp)"
    if row.bp_reg is OrcRegister.UNDEFINED:
        return "same"
    return f"unknown register {row.bp_reg.value}"
