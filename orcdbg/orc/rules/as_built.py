"""Which rule does the row as built state?"""

from __future__ import annotations

from orcdbg.orc.effective import AsBuilt, Unknown
from orcdbg.orc.rules.source import Lookup


class RowsAsBuilt:
    """The tables of the kernel's build; always answers."""

    def at(self, lookup: Lookup) -> AsBuilt | Unknown:
        """The row's rule; unknown where no row covers the address."""
        return Unknown() if lookup.entry is None else AsBuilt(lookup.entry, lookup.rule)
