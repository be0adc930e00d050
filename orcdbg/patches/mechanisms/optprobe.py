"""Where did kprobes put the jump of an optimised probe?

Mirrors arch/x86/kernel/kprobes/opt.c: a probe that can be a jump becomes one some time after it was armed.
"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.mechanisms.kprobe import ProbePass
from orcdbg.patches.site import Applied, PatchPass, WorkingText


class OptprobesPass(ProbePass):
    """Jumps to the slots of optimised probes."""

    mechanism = "optprobe"
    is_optimized = True
    size = 5

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """A jump over the first five bytes."""
        probe = self._probes[index]
        text.write(probe.address, detour(probe.address, probe.slot))
        return Applied(probe.symbol, f"kprobe {probe.probe:#x} is optimised, slot {probe.slot:#x}")


def detour(address: int, slot: int) -> bytes:
    """The jump from a probed address to its slot."""
    return b"\xe9" + (slot - address - OptprobesPass.size & 0xFFFF_FFFF).to_bytes(4, "little")


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[OptprobesPass]:
    return [OptprobesPass(build.probes)]


OPTPROBE = Mechanism(OptprobesPass.mechanism, _passes)
