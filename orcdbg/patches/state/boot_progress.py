"""Has the boot patched its text by now? Before, nobody can tell how far it has come at the places of its passes."""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_u32
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import Applied, PatchPass, Spans, Undecidable, WorkingText
from orcdbg.patches.sweep import FromTable

FLAG = "alternatives_patched"  # set at the end of alternative_instructions()


class Unfinished:
    """A pass of a boot that was stopped before its end: all of its places are undecided."""

    def __init__(self, of: PatchPass) -> None:
        self._of = of
        self.mechanism = of.mechanism
        self.table = of.table if isinstance(of, FromTable) else of.mechanism

    def spans(self) -> Spans:
        """The places of the pass."""
        return self._of.spans()

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Raises Undecidable, whatever the place."""
        raise Undecidable(f"{FLAG} is 0: the boot had not come to its end")


def as_far_as_they_came(passes: Sequence[PatchPass], linux: Linux) -> list[PatchPass]:
    """The passes of the boot, each `Unfinished` where the kernel says that they have not all been run.

    Mirrors the end of alternative_instructions() in arch/x86/kernel/alternative.c.
    """
    flag = linux.find_address(FLAG)
    try:
        is_finished = flag is None or read_u32(linux.memory, flag) != 0
    except MemoryFault:
        is_finished = True
    return list(passes) if is_finished else [Unfinished(the_pass) for the_pass in passes]
