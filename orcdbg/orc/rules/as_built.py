"""Which rule does the row as built state?"""

from __future__ import annotations

from orcdbg.orc.effective import AsBuilt, Unknown
from orcdbg.orc.rules.source import Lookup


class RowsAsBuilt:
    """The tables of the kernel's build, or what stands in for them; always answers."""

    def at(self, lookup: Lookup) -> AsBuilt | Unknown:
        """The row's rule; unknown where no row covers the address."""
        if lookup.entry is None:
            return Unknown()
        derivation = lookup.entry.derivation
        return AsBuilt(lookup.entry, lookup.rule, doubt=None if derivation is None else derivation.doubt)
