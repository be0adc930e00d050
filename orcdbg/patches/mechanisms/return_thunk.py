"""What stands at each compiled return: a plain `ret`, or a jump to the return thunk that this machine needs?

Mirrors apply_returns() and patch_return() in arch/x86/kernel/alternative.c. Sites are in `.return_sites`, each built as a
jump to `__x86_return_thunk`; the feature RETHUNK and the pointer `x86_return_thunk` decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import Applied, PatchPass, U64Array, WorkingText, make_spans
from orcdbg.patches.state.mitigations import JUMP, Mitigations
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import branch_targets, section_sites

_SIZE = 5


class ReturnsPass(Sweep):
    """`apply_returns()` as a replay pass.

    Args:
        sites: run-time addresses of the returns, five bytes each.
        linux: the kernel.
        mitigations: what this machine chose.

    Raises:
        NotFound: the kernel has sites and no `__x86_return_thunk`.
    """

    mechanism = "return-thunk"
    table = ".return_sites"

    def __init__(self, sites: U64Array, linux: Linux, mitigations: Mitigations) -> None:
        self.places = make_spans(sites, np.full(len(sites), _SIZE))
        self._default = linux.address("__x86_return_thunk")
        self._mitigations = mitigations

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """Jumps to the default thunk become what the machine wants; anything else is left alone, as the kernel does."""
        starts = self.places.starts[rows]
        now = text.gather(starts, _SIZE)
        ours = (now[:, 0] == JUMP) & (branch_targets(starts, now) == np.uint64(self._default))
        rows, starts = rows[ours], starts[ours]
        for written in self._mitigations.returns(starts):
            yield Written(rows[written.rows], written.data)

    def describe(self, row: int) -> Applied:
        """The return and its reason."""
        return self._mitigations.describe_return()


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[ReturnsPass]:
    sites = section_sites(build.image, ReturnsPass.table, build.linux.slide)
    return [ReturnsPass(sites, build.linux, build.mitigations)] if len(sites) else []


RETURN_THUNK = Mechanism(ReturnsPass.mechanism, _passes, (ReturnsPass.table,))
