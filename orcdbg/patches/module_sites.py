"""Where did the loader patch a module's alternatives and paravirt calls, by the tables the module keeps in memory?

Without the .ko nobody knows what stood there before, and a walk need not know: what the patched instructions do to the stack
pointer is in the text itself. The tables' lengths are kept nowhere; they end where the next section begins, or at the
first entry that names no text of the module.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.module_sections import module_sections
from orcdbg.kernel.modules import Module
from orcdbg.patches.alternative_table import AlternativeTable, entry_size
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.mechanisms.alternative import AlternativesPass
from orcdbg.patches.mechanisms.paravirt import STRIDE, ParavirtPass
from orcdbg.patches.site import PatchSite

MAX_TABLE = 1 << 20


class ModuleSites:
    """The patch sites of loaded modules, each read on first need.

    Args:
        linux: the kernel.
        core_table: `.altinstructions` of the vmlinux, which tells the layout of the modules' tables; without it BTF does.
    """

    def __init__(self, linux: Linux, core_table: bytes) -> None:
        self._linux = linux
        size = linux.types.size("alt_instr") if linux.types.exists("alt_instr") else 12
        self._entry_size = entry_size(core_table) or size
        self._clusters: dict[int, list[Cluster]] = {}

    def find(self, module: Module, address: int) -> Cluster | None:
        """The site of a module that covers an address; its `image` is not known, and only as long as the site."""
        return next((cluster for cluster in self.of(module) if cluster.address <= address < cluster.end), None)

    def of(self, module: Module) -> list[Cluster]:
        """The sites of a module, by address; one that lies inside another is not told apart from it."""
        if module.address not in self._clusters:
            clusters: list[Cluster] = []
            for cluster in sorted(self._read(module), key=lambda cluster: (cluster.address, -cluster.end)):
                if not clusters or cluster.end > clusters[-1].end:
                    clusters.append(cluster)
            self._clusters[module.address] = clusters
        return self._clusters[module.address]

    def _read(self, module: Module) -> Iterator[Cluster]:
        try:
            sections = module_sections(self._linux, module)
            is_inside = functools.partial(_is_inside, module)
            if ParavirtPass.table in sections:
                # The reader goes on behind the table's end: the first entry of no text ends it.
                sites = self._paravirt(self._table(sections, ParavirtPass.table))
                yield from _clusters(module, ParavirtPass.mechanism, itertools.takewhile(is_inside, sites))
            if AlternativesPass.table in sections:
                # These come sorted: entries of damaged or foreign bytes may stand before good ones.
                sites = self._alternatives(
                    self._table(sections, AlternativesPass.table), sections[AlternativesPass.table]
                )
                yield from _clusters(module, AlternativesPass.mechanism, filter(is_inside, sites))
        except OrcdbgError:
            return  # no list of sections: a walk then relies on its other checks, as before this was read

    def _table(self, sections: dict[str, int], name: str) -> bytes:
        start = sections[name]
        end = min((at for at in sections.values() if at > start), default=start + MAX_TABLE)
        size = min(end - start, MAX_TABLE)
        try:
            return self._linux.memory.read(start, size)
        except MemoryFault:
            return self._linux.memory.read(start, -start % PAGE)

    @staticmethod
    def _paravirt(table: bytes) -> Iterator[tuple[int, int]]:
        for entry in range(0, len(table) - 9, STRIDE):
            yield int.from_bytes(table[entry : entry + 8], "little"), table[entry + 9]

    def _alternatives(self, table: bytes, address: int) -> Iterator[tuple[int, int]]:
        whole = table[: len(table) // self._entry_size * self._entry_size]
        entries = AlternativeTable(whole, address, self._entry_size)
        sites, firsts = np.unique(entries.sites, return_index=True)
        yield from zip(sites.tolist(), entries.sizes[firsts].tolist(), strict=True)


def _is_inside(module: Module, site: tuple[int, int]) -> bool:
    """True for an entry that names text of the module."""
    start, size = module.text
    return start <= site[0] < start + size and site[1] > 0


def _clusters(module: Module, mechanism: str, sites: Iterable[tuple[int, int]]) -> Iterator[Cluster]:
    """Each site, of which the table alone tells where it is."""
    for address, length in sites:
        site = PatchSite(mechanism, address, length, "of module " + module.name, b"", None, "the module's table", 0)
        yield Cluster(address, bytes(length), None, (site,), image_known=False)
