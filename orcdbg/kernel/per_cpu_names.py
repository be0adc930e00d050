"""Which per-CPU variable is at this offset from a CPU's base?

Before 6.15 per-CPU symbols count from zero (commit 9d7de2aa8b41 made them addresses like all others), so that no look-up by
address finds them.
"""

from __future__ import annotations

import bisect
import functools

from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Location
from orcdbg.symbols.table import Symbol, kallsyms_rank


class PerCpuNames:
    """Names of places in the image's per-CPU area."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    @functools.cached_property
    def _bounds(self) -> tuple[int, int]:
        start, end = (self._linux.symbols.find(name) for name in ("__per_cpu_start", "__per_cpu_end"))
        return (start.address, end.address) if start is not None and end is not None else (0, 0)

    @functools.cached_property
    def _symbols(self) -> list[Symbol]:
        # Of several at an address the one that the kernel would print: it is put last, where the look-up finds it.
        found = sorted(self._linux.symbols.between(*self._bounds), key=kallsyms_rank, reverse=True)
        return sorted(found, key=lambda symbol: symbol.address)

    @functools.cached_property
    def _addresses(self) -> list[int]:
        return [symbol.address for symbol in self._symbols]

    def at(self, address: int) -> Location | None:
        """The variable at an address as instructions with a %gs prefix have it; None where there is none."""
        start, end = self._bounds
        if start >> 63:
            address -= self._linux.slide
        if not start <= address < end:
            return None
        behind = bisect.bisect_right(self._addresses, address)
        if not behind:
            return None
        symbol = self._symbols[behind - 1]
        following = self._addresses[behind] if behind < len(self._addresses) else end
        return Location(symbol.name, self._linux.run_time(symbol), following - symbol.address, None, False)
