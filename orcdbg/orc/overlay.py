"""Which CFA rule holds at this address, given what the kernel wrote over its own text?

The row as built is right wherever the patched instructions leave the stack as the row says. Where they do not, and where
there is no row, other sources tell. Each is a file in `rules/`; the tuple below puts them in order, and the first that has
an answer decides. Kernels whose build put the rows of all alternatives into the image state the same rule themselves, and
then nothing is corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import U64
from orcdbg.kernel.generated_code import MadeCode
from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule, cfa_rule
from orcdbg.orc.effective import Effective
from orcdbg.orc.rules.as_built import RowsAsBuilt
from orcdbg.orc.rules.entry_code import CallersOfSavingFunctions, SavingFunctions
from orcdbg.orc.rules.error_entry_result import ErrorEntryResult
from orcdbg.orc.rules.generated_code import GeneratedCode
from orcdbg.orc.rules.lost_tables import LostTables, UnlistedPatches
from orcdbg.orc.rules.patched_sites import PatchedSites
from orcdbg.orc.rules.return_trampolines import ReturnTrampolineCode, ReturnTrampolines
from orcdbg.orc.rules.source import Lookup, RuleSource
from orcdbg.orc.rules.thunks import ThunkInstructions
from orcdbg.orc.rules.undefined_rows import UndefinedRows, UnstatedFunctions
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.ledger import Cluster

FindEntry = Callable[[int], OrcEntry | None]


class OrcOverlay:
    """ORC rows corrected for patched text.

    Args:
        find_entry: the kernel's own look-up, rows as built.
        find_cluster: the patch sites that cover an address, of the image and of modules.
        memory: text as it was in memory.
        sp_indirect_adds_last: see `cfa_rule`.
        locate: the symbol that holds an address.
        saving: where the functions are that save all registers around their own return address.
        returns: the code that replaced return addresses lead to.
        find_made: the code that the kernel made at an address.
        unlisted: finds stack movement that no table tells of, where the kernel's own tables are lost.
        unstated: finds rules in compiled functions whose rows are undefined.
    """

    def __init__(
        self,
        find_entry: FindEntry,
        find_cluster: Callable[[int], Cluster | None],
        memory: AddressSpace,
        sp_indirect_adds_last: bool,
        locate: Callable[[int], Location | None],
        saving: Sequence[int] = (),
        returns: ReturnTrampolines | None = None,
        find_made: Callable[[int], MadeCode | None] | None = None,
        unlisted: UnlistedPatches | None = None,
        unstated: UnstatedFunctions | None = None,
    ) -> None:
        self.saving = SavingFunctions(saving, memory)
        self._locate = locate
        self._find_entry = find_entry
        self._find_cluster = find_cluster
        self._adds_last = sp_indirect_adds_last

        sources: tuple[RuleSource | None, ...] = (
            # First, since ORC has rows here in some versions, for needs of the kernel's own unwinder: they look defined,
            # and no later source would doubt them.
            None if returns is None else ReturnTrampolineCode(returns),
            # Before all that read the image's text: made code is no part of it. It answers only where no table covers
            # the address, and asks this overlay again for the text that a copy was made from.
            None if find_made is None else GeneratedCode(find_made, memory, self.stated, self.at),
            # Before the patched sites: a thunk is patched too, but whatever its row says does not hold in it, so that
            # there is nothing to correct.
            ThunkInstructions(memory),
            # Before the patched sites, whose first row describes the state before the call: this instruction stands
            # behind a call of other code, where they follow nothing.
            ErrorEntryResult(self.saving),
            # The next two are about rows of other types (undefined; saved registers) than the patched sites move, and
            # about other functions than one another. Assembly such as error_entry is none that a compiler made, so its
            # undefined rows are left to the second.
            None if unstated is None else UndefinedRows(unstated),
            CallersOfSavingFunctions(self.saving, locate),
            # Before the patched sites, and exclusive of them: where a site is still listed, that one is right.
            None if unlisted is None else LostTables(unlisted),
            # Behind all that know better than the row: it moves the row, and believes it otherwise.
            PatchedSites(memory, self.stated),
            # Last: it always answers.
            RowsAsBuilt(),
        )
        self._sources = tuple(source for source in sources if source is not None)

    def stated(self, address: int) -> tuple[OrcEntry | None, CfaRule | None]:
        """The entry as built for an address, and its rule."""
        entry = self._find_entry(address)
        return entry, None if entry is None else cfa_rule(entry.row, self._adds_last)

    def at(self, ip: int, exact: bool) -> Effective:
        """The rule for a frame.

        Args:
            ip: its instruction pointer.
            exact: True for an interrupted address, False for a return address (looked up at ip - 1).
        """
        address = (ip if exact else ip - 1) & U64
        lookup = Lookup(ip, exact, address, *self.stated(address), self._locate, self._find_cluster)
        answers = (source.at(lookup) for source in self._sources)
        return next(answer for answer in answers if answer is not None)
