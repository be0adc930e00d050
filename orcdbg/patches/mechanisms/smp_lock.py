"""Were lock prefixes taken out because only one CPU runs?

Mirrors alternatives_smp_unlock() in arch/x86/kernel/alternative.c. `.smp_locks` names the prefixes; `uniproc_patched` tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, U64Array, Undecidable, WorkingText, make_spans
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import repeated, section_sites

_LOCK, _DS = 0xF0, b"\x3e"


class SmpLocksPass(Sweep):
    """`alternatives_smp_unlock()` as a replay pass.

    Args:
        sites: run-time addresses of the prefixes, a byte each.
        linux: the kernel.
    """

    mechanism = "smp-lock"
    table = ".smp_locks"

    def __init__(self, sites: U64Array, linux: Linux) -> None:
        self.places = make_spans(sites, np.ones(len(sites)))
        self._linux = linux

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """On one CPU a LOCK prefix becomes a DS prefix, which does nothing."""
        flag = self._linux.find_address("uniproc_patched")
        try:
            patched = flag is not None and self._linux.memory.read(flag, 1) != b"\0"
        except MemoryFault as error:
            raise Undecidable(f"uniproc_patched: {error}") from error
        if patched:
            locks = rows[text.gather(self.places.starts[rows], 1)[:, 0] == _LOCK]
            yield Written(locks, repeated(_DS, len(locks)))

    def describe(self, row: int) -> Applied:
        """Why."""
        return Applied("lock", "uniproc_patched = 1")


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[SmpLocksPass]:
    sites = section_sites(build.image, SmpLocksPass.table, build.linux.slide)
    return [SmpLocksPass(build.patched_locks(sites), build.linux)]


SMP_LOCK = Mechanism(SmpLocksPass.mechanism, _passes, (SmpLocksPass.table,))
