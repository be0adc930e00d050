"""What is a source of CFA rules asked, and what does it answer?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule, cfa_rule
from orcdbg.orc.effective import Effective
from orcdbg.orc.rows import RowType
from orcdbg.orc.table import OrcEntry
from orcdbg.orc.tables import Rows
from orcdbg.patches.code import Code
from orcdbg.patches.ledger import Cluster


class StatedRows:
    """What the rows as built state.

    Args:
        rows: the kernel's own look-up.
        adds_last: what SP_INDIRECT means, see `cfa_rule`.
    """

    def __init__(self, rows: Rows, adds_last: bool) -> None:
        self._rows = rows
        self._adds_last = adds_last

    def at(self, address: int) -> tuple[OrcEntry | None, CfaRule | None]:
        """The entry for an address, and its rule; None for what there is not."""
        entry = self._rows.find(address)
        if entry is not None and entry.derivation is not None:
            return entry, entry.derivation.rule
        return entry, None if entry is None else cfa_rule(entry.row, self._adds_last)


class Rules(Protocol):
    """Which rule holds where, all sources counted: the overlay."""

    def at(self, ip: int, exact: bool) -> Effective:
        """The rule for a frame, see `OrcOverlay.at`."""


@dataclass(frozen=True)
class Lookup:
    """One question: which rule holds in a frame?

    An ip is exact where the CPU was about to execute the instruction there: it was interrupted, or stopped. A return address
    is not: it is behind the call that the frame is in, and at the end of a function behind that too, so that the row, the
    symbol and the patch site are looked up one byte before it. The kernel's unwinder does the same (`state->signal`).

    Args:
        ip: the frame's instruction pointer.
        exact: True for an interrupted address, False for a return address.
        address: what is looked up: `ip`, or for a return address `ip - 1`.
        entry: the entry as built there, None where no table covers it.
        rule: that entry's rule, None where it states none.
        code: the kernel.
    """

    ip: int
    exact: bool
    address: int
    entry: OrcEntry | None
    rule: CfaRule | None
    code: Code

    @functools.cached_property
    def location(self) -> Location | None:
        """The symbol that holds `address`."""
        return self.code.locate(self.address)

    @functools.cached_property
    def cluster(self) -> Cluster | None:
        """The patch sites that cover `address`."""
        return self.code.cluster(self.address)

    @property
    def is_derived(self) -> bool:
        """True where the row is of no table, and was derived from the text as it ran: patches are in it already."""
        return self.entry is not None and self.entry.derivation is not None

    def has_type(self, row_type: RowType) -> bool:
        """True where the entry as built is of that type."""
        return self.entry is not None and self.entry.row.type is row_type


class RuleSource(Protocol):
    """One place that a rule can come from."""

    def at(self, lookup: Lookup) -> Effective | None:
        """What holds, or None where this source has nothing to say and the next one is asked."""
