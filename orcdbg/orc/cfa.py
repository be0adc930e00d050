"""How does the CFA follow from the registers, written so that people and programs can read it?"""

from __future__ import annotations

from typing import NamedTuple

from orcdbg.orc.rows import OrcRow


class CfaRule(NamedTuple):
    """CFA = base + offset; with `indirect` "word" the word at base + offset, with "base" the word at base, + offset."""

    base: str
    offset: int
    indirect: str = ""

    def __str__(self) -> str:
        offset = f"{self.offset:+d}" if self.offset else ""
        if self.indirect == "word":
            return f"({self.base}{offset})"
        return f"({self.base}){offset}" if self.indirect else f"{self.base}{offset}"

    def moved(self, adjust: int) -> CfaRule:
        """The rule after the stack pointer went down by `adjust` bytes; one on another base does not change."""
        return self._replace(offset=self.offset + adjust) if self.base == "sp" and not self.indirect else self


def cfa_rule(row: OrcRow, sp_indirect_adds_last: bool) -> CfaRule | None:
    """The rule in an ORC row; None for a row that has none.

    Args:
        row: the entry.
        sp_indirect_adds_last: SP_INDIRECT means (word at sp) + offset, as since 5.12; before, the word at sp + offset.
    """
    if row.sp_reg == "(sp)":
        return CfaRule("sp", row.sp_offset, "base" if sp_indirect_adds_last else "word")
    if row.sp_reg == "(bp)":
        return CfaRule("bp", row.sp_offset, "word")
    if row.sp_reg in ("undefined", "prev_sp"):
        return None
    return CfaRule(row.sp_reg, row.sp_offset)


def bp_rule(row: OrcRow) -> str:
    """How the caller's rbp follows: `same`, or the word at an offset from the CFA or from rbp."""
    if row.bp_reg == "prev_sp":
        return f"(cfa{row.bp_offset:+d})"
    if row.bp_reg == "bp":
        return f"(bp{row.bp_offset:+d})" if row.bp_offset else "(bp)"
    return "same" if row.bp_reg == "undefined" else f"unknown register {row.bp_reg}"
