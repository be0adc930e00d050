"""Which rule holds at the instruction that takes error_entry's result as the stack pointer?

`call error_entry; mov %rax,%rsp` is an alternative since 6.0, and its row describes the state before the call at both
instructions. But error_entry comes back with a whole pt_regs pushed, whose address is in rax: an NMI or a stopped CPU at
the `mov` finds nothing where the row points. Found in the lab by stepping (6.1, 6.12, 7.2).
"""

from __future__ import annotations

from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.effective import Derived, Source
from orcdbg.orc.reasons import RegistersAtResult
from orcdbg.orc.rows import OrcRegister, OrcRow, RowType
from orcdbg.orc.rules.entry_code import SavingFunctions
from orcdbg.orc.rules.source import Lookup

_ROW = OrcRow(OrcRegister.AX, 0, OrcRegister.UNDEFINED, 0, RowType.REGS, True)


class ErrorEntryResult:
    """The `mov %rax,%rsp` behind calls of error_entry.

    Args:
        saving: error_entry and its like.
    """

    def __init__(self, saving: SavingFunctions) -> None:
        self._saving = saving

    def at(self, lookup: Lookup) -> Derived | None:
        """The registers at rax, where a CPU stopped at the `mov`."""
        if not lookup.exact or not lookup.has_type(RowType.REGS_PARTIAL):
            return None
        if not self._saving.is_taken_from_rax(lookup.ip):
            return None
        return Derived(
            entry=lookup.entry,
            rule=CfaRule(OrcRegister.AX, 0),
            row=_ROW,
            reason=RegistersAtResult(),
            source=Source.TRAMPOLINE,
            instructions=("call error_entry",),
        )
