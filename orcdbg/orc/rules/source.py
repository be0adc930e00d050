"""What is a source of CFA rules asked, and what does it answer?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orcdbg.kernel.names import Location
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.effective import Effective
from orcdbg.orc.rows import RowType
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.ledger import Cluster

Stated = Callable[[int], tuple[OrcEntry | None, CfaRule | None]]


@dataclass(frozen=True)
class Lookup:
    """One question: which rule holds in a frame?

    Args:
        ip: the frame's instruction pointer.
        exact: True for an interrupted address, False for a return address.
        address: what is looked up: `ip`, or for a return address `ip - 1`.
        entry: the entry as built there, None where no table covers it.
        rule: that entry's rule, None where it states none.
    """

    ip: int
    exact: bool
    address: int
    entry: OrcEntry | None
    rule: CfaRule | None
    locate: Callable[[int], Location | None]
    find_cluster: Callable[[int], Cluster | None]

    @functools.cached_property
    def location(self) -> Location | None:
        """The symbol that holds `address`."""
        return self.locate(self.address)

    @functools.cached_property
    def cluster(self) -> Cluster | None:
        """The patch sites that cover `address`."""
        return self.find_cluster(self.address)

    def has_type(self, row_type: RowType) -> bool:
        """True where the entry as built is of that type."""
        return self.entry is not None and self.entry.row.type is row_type


class RuleSource(Protocol):
    """One place that a rule can come from."""

    def at(self, lookup: Lookup) -> Effective | None:
        """What holds, or None where this source has nothing to say and the next one is asked."""
