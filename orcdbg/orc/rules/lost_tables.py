"""Where the tables of patched places are lost, does the row as built hold here, by the instructions before it?

Between two rows that count from the stack pointer the compiler's code does not move it. Where instructions in memory do,
since the beginning of the row, they were patched in, and the rule moves with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reasons import Reason
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.effective import AsBuilt, Corrected, PatchEffect, TextFrom
from orcdbg.orc.reasons import (
    FillsReturnStack,
    NotABoundarySinceRow,
    NoText,
    RowBeganTooFarBack,
    TookMoreThanPut,
)
from orcdbg.orc.rows import RowType
from orcdbg.orc.rules.source import Lookup
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.code import Code
from orcdbg.patches.site import PatchSite
from orcdbg.x86.follow import straight
from orcdbg.x86.instructions import Instruction

MAX_STRETCH = 1 << 14
MECHANISM = "unlisted"
_DECIDED_BY = "the instructions in memory; the tables of the boot are gone"
_SHORT_CALL, _BESIDE = re.compile(rb"\xe8[\x01-\x10]\0\0\0", re.DOTALL), 20


@dataclass(frozen=True, slots=True)
class Moved:
    """The stack pointer at an address has moved since its row began.

    `pushed` are the bytes by which it is lower; `path` are the instructions that moved it, `text` the bytes from the first
    of them up to the address.
    """

    pushed: int
    path: tuple[Instruction, ...]
    text: bytes


class UnrecordedPatches:
    """Looks for stack movement inside single rows.

    Args:
        code: the kernel, whose text is looked for in memory where the boot has not given that back.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._memory = code.memory
        self._known: dict[tuple[int, int], Moved | Reason | None] = {}

    def before(self, ip: int, entry: OrcEntry, rule: CfaRule | None) -> Moved | Reason | None:
        """What moved the stack pointer between the beginning of a row and `ip`; None for nothing, a reason for doubt."""
        if rule is None or not rule.counts_from_sp or entry.row.type is not RowType.CALL:
            return None
        if ip == entry.entry_ip or not self._code.is_lasting(ip - 1):
            return None
        key = ip, entry.entry_ip
        if key not in self._known:
            self._known[key] = self._look(ip, entry.entry_ip)
        return self._known[key]

    def _fills_return_stack(self, ip: int) -> bool:
        """True beside calls that only jump over the next few bytes."""
        try:
            return _SHORT_CALL.search(self._memory.read(ip - _BESIDE, 2 * _BESIDE)) is not None
        except MemoryFault:
            return False

    def _look(self, ip: int, start: int) -> Moved | Reason | None:
        if not 0 < ip - start <= MAX_STRETCH:
            return RowBeganTooFarBack(ip - start)
        try:
            text = self._memory.read(start, ip - start)
        except MemoryFault:
            return NoText()
        if self._fills_return_stack(ip):
            return FillsReturnStack()
        for address, state in straight(text, start, _SinceRow(0, ()), _after):
            if state.pushed < 0:
                return TookMoreThanPut()
            if address == ip:
                path = state.path
                return Moved(state.pushed, path, text[path[0].address - start :]) if path else None
        return NotABoundarySinceRow(ip)


class _SinceRow(NamedTuple):
    """Bytes pushed since the row began, and the instructions that did it; none once all are popped again."""

    pushed: int
    path: tuple[Instruction, ...]


def _after(state: _SinceRow, insn: Instruction) -> _SinceRow:
    if insn.ends_flow or insn.sp_change is None:
        # What follows is reached from elsewhere, or has a row of its own.
        return _SinceRow(0, ())
    pushed = state.pushed + insn.sp_change
    if not pushed:
        return _SinceRow(0, ())
    return _SinceRow(pushed, (*state.path, insn) if insn.sp_change else state.path)


class LostTables:
    """Rows where the kernel's tables of patched places are lost, by what moved the stack since the row began.

    Args:
        unlisted: looks for stack movement.
    """

    def __init__(self, unlisted: UnrecordedPatches) -> None:
        self._unlisted = unlisted

    def at(self, lookup: Lookup) -> AsBuilt | Corrected | None:
        """The row, moved or in doubt; nothing where a site is still listed, or no row covers the address."""
        entry, rule = lookup.entry, lookup.rule
        if entry is None or lookup.is_derived or lookup.cluster is not None:
            return None

        moved = self._unlisted.before(lookup.ip, entry, rule)
        if isinstance(moved, Reason):
            return AsBuilt(entry, rule, doubt=moved)
        if moved is None or rule is None:
            return AsBuilt(entry, rule)

        first = moved.path[0].address
        site = PatchSite(MECHANISM, first, lookup.ip - first, "?", moved.text, None, _DECIDED_BY, 0)
        names = tuple(insn.mnemonic for insn in moved.path)
        patch = PatchEffect(site, moved.pushed, names, str(rule), moved.text, TextFrom.MEMORY)
        return Corrected(entry, rule.moved(moved.pushed), patch)
