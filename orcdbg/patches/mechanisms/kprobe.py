"""Where did kprobes put a breakpoint?

Mirrors arch_arm_kprobe() in arch/x86/kernel/kprobes/core.c. Which probes are armed is told by `Probes`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.site import CANNOT_TELL, Applied, PatchPass, Spans, WorkingText, make_spans
from orcdbg.patches.state.probes import Probe, Probes


class ProbePass:
    """Probes of one kind as a replay pass."""

    mechanism: str
    is_optimized: bool
    size: int  # of the instruction that is written over the probed ones

    def __init__(self, probes: Probes) -> None:
        self._source = probes

    @functools.cached_property
    def _probes(self) -> list[Probe]:
        return [probe for probe in self._source.armed if bool(probe.slot) == self.is_optimized]

    def unlisted(self) -> list[str]:
        """Why places may be missing."""
        return self._source.problems

    def originals(self) -> list[tuple[int, bytes]]:
        """Address and overwritten bytes of each probe; none where they cannot be told."""
        try:
            return [(probe.address, probe.original) for probe in self._probes]
        except CANNOT_TELL:
            return []

    def spans(self) -> Spans:
        """The probed addresses."""
        return make_spans([probe.address for probe in self._probes], [self.size] * len(self._probes))


class KprobesPass(ProbePass):
    """Breakpoints."""

    mechanism = "kprobe"
    is_optimized = False
    size = 1

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """An INT3 over the first byte."""
        probe = self._probes[index]
        text.write(probe.address, b"\xcc")
        return Applied(probe.symbol, f"kprobe {probe.probe:#x} is armed")


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[KprobesPass]:
    return [KprobesPass(build.probes)]


KPROBE = Mechanism(KprobesPass.mechanism, _passes)
