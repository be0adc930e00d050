"""Which CFA rule holds at this address, given what the kernel wrote over its own text?

The row as built is right wherever the patched instructions leave the stack as the row says. Where they do not, and where
there is no row, other sources tell. Each is a file in `rules/`; the tuple below puts them in order, and the first that has
an answer decides. Kernels whose build put the rows of all alternatives into the image state the same rule themselves, and
then nothing is corrected.

The walker adds three rules of its own (`Walker._rule_of` and `_row_and_rule`): for the caller of a function that has saved
all registers, which only the frame below tells, and for code on no list and calls of no code, which no table covers.
"""

from __future__ import annotations

from orcdbg.base.sizes import U64
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.effective import Effective
from orcdbg.orc.image_table import sp_indirect_adds_last
from orcdbg.orc.rules.as_built import RowsAsBuilt
from orcdbg.orc.rules.entry_code import InsideSavingFunctions, SavingFunctions, saving_functions
from orcdbg.orc.rules.error_entry_result import ErrorEntryResult
from orcdbg.orc.rules.generated_code import InsideGeneratedCode
from orcdbg.orc.rules.lost_tables import LostTables, UnrecordedPatches
from orcdbg.orc.rules.patched_sites import PatchedSites
from orcdbg.orc.rules.return_trampolines import InsideReturnTrampolines, ReturnTrampolines
from orcdbg.orc.rules.source import Lookup, RuleSource, StatedRows
from orcdbg.orc.rules.thunks import InsideThunks
from orcdbg.orc.rules.undefined_rows import LeftOutFunctions, UndefinedRows
from orcdbg.orc.rules.xen import BesideHypervisor, InsideHypercallStubs
from orcdbg.orc.table import OrcEntry
from orcdbg.orc.tables import Rows
from orcdbg.patches.code import Code


class OrcOverlay:
    """ORC rows corrected for patched text.

    Args:
        code: the kernel; its text in memory is what patches are read from.
        rows: the kernel's own look-up, rows as built.

    Attributes:
        saving: the functions that save all registers around their own return address.
        returns: the code that replaced return addresses lead to.
    """

    def __init__(self, code: Code, rows: Rows) -> None:
        self._code = code
        self._stated = StatedRows(rows, sp_indirect_adds_last(code.linux))
        self.saving = SavingFunctions(saving_functions(code.linux), code.memory)
        self.returns = ReturnTrampolines(code.linux)

        sources: tuple[RuleSource | None, ...] = (
            # First, since ORC has rows here in some versions, for needs of the kernel's own unwinder: they look defined,
            # and no later source would doubt them.
            InsideReturnTrampolines(self.returns),
            # It answers only where no table covers the address, where none of the following does either; so it may stand
            # anywhere. It asks this overlay again for the text that a copy was made from.
            InsideGeneratedCode(code, self._stated, self),
            # Before the patched sites, which count from the row at a site's start. A thunk's row, where it has one, is of the
            # code before or behind it.
            InsideThunks(code.memory),
            # Before all below: it alone knows what is in the page, whose rows are of the build's own stubs.
            InsideHypercallStubs(code.linux),
            # Likewise: these rows say that nothing is known.
            BesideHypervisor(code, self._stated),
            # Before the patched sites and the rows as built, which both take the row at the `mov` as it is. It still
            # describes the state before the call: it is one instruction late.
            ErrorEntryResult(self.saving),
            # Before all below, which accept a row without a rule: there the walk would stop. It answers for functions that a
            # compiler made, the next source for assembly, so these two may change places.
            UndefinedRows(LeftOutFunctions(code, rows)),
            # Before the patched sites, which would believe a row that leaves the caller out.
            InsideSavingFunctions(self.saving),
            # Before the patched sites: it answers wherever a row covers an address that no listed site does, and leaves
            # the rest to them. Where all patches are listed, what is not was not patched, and nothing is looked for.
            None if code.are_patches_listed else LostTables(UnrecordedPatches(code)),
            # Behind all that know better than the row: it moves the row, and believes it otherwise.
            PatchedSites(code.memory, self._stated),
            # Last: it always answers.
            RowsAsBuilt(),
        )
        self._sources = tuple(source for source in sources if source is not None)

    def stated(self, address: int) -> tuple[OrcEntry | None, CfaRule | None]:
        """The entry as built for an address, and its rule."""
        return self._stated.at(address)

    def at(self, ip: int, exact: bool) -> Effective:
        """The rule for a frame.

        Args:
            ip: its instruction pointer.
            exact: True for an interrupted address, False for a return address (looked up at ip - 1).
        """
        address = (ip if exact else ip - 1) & U64
        lookup = Lookup(ip, exact, address, *self._stated.at(address), self._code)
        answers = (source.at(lookup) for source in self._sources)
        return next(answer for answer in answers if answer is not None)
