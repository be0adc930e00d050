"""Which patches does this kernel have, and who tells of them: the image's tables, a journal, or nobody?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from orcdbg.base.errors import NotFound
from orcdbg.patches.alternative_table import ALTERNATIVES
from orcdbg.patches.build import Build
from orcdbg.patches.ledger import PatchLedger
from orcdbg.patches.site import PatchPass
from orcdbg.patches.stack_mechanisms import stack_passes

if TYPE_CHECKING:
    from orcdbg.patches.journal import Journal, JournalLedger
    from orcdbg.patches.module_sites import ModuleSites

MakePasses = Callable[[Build], Sequence[PatchPass]]


class KernelPatches:
    """The patches of one stopped kernel; each table is read on first use.

    Args:
        build: what the passes of the kernel over its own text draw on.
        extra_passes: patch mechanisms of plug-ins, run after the built-in ones.
        journal: patches that were recorded elsewhere, for a kernel without an image; None where there is none.
    """

    def __init__(self, build: Build, extra_passes: Sequence[MakePasses] = (), journal: Journal | None = None) -> None:
        self.build = build
        self.journal = journal
        self._extra_passes = extra_passes

    @property
    def are_listed(self) -> bool:
        """False where nothing tells what was patched: no image, and no journal either."""
        return not self.build.image.is_memory or self.journal is not None

    def need_listed(self) -> None:
        """Raises NotFound where nothing tells what was patched."""
        if self.journal is None:
            self.need_image("what was patched")

    def need_image(self, what: str) -> None:
        """Raises NotFound where there is no image, and says `what` is not known without."""
        if self.build.image.is_memory:
            hint = "give the vmlinux or vmlinuz of this kernel besides the snapshot"
            raise NotFound("image", f"the snapshot alone does not tell {what}", hint)

    @functools.cached_property
    def _extra(self) -> list[PatchPass]:
        return [one for make in self._extra_passes for one in make(self.build)]

    @functools.cached_property
    def passes(self) -> list[PatchPass]:
        """Every pass of the kernel over its own text, in order.

        Making them all reads each table of the image once; who needs one mechanism asks for less than this.
        """
        if self.build.image.is_memory:
            return [*self._jumps]

        from orcdbg.patches.replay import all_passes

        return all_passes(self.build) + self._extra

    @functools.cached_property
    def ledger(self) -> PatchLedger | JournalLedger:
        """All patch sites; without an image, which is what they are told by, those of the journal, or none."""
        if self.journal is not None:
            from orcdbg.patches.journal import JournalLedger

            return JournalLedger(self.journal.clusters)
        if self.build.image.is_memory:
            return PatchLedger([], self.build.built)
        return PatchLedger(self.passes, self.build.built)

    @functools.cached_property
    def stack_ledger(self) -> PatchLedger | JournalLedger:
        """The patch sites where the stack pointer may move otherwise than as built; what a walk needs, at a walk's price."""
        if self.journal is not None:
            from orcdbg.patches.journal import JournalLedger

            return JournalLedger(self.journal.stack)
        return PatchLedger(stack_passes(self.build) + self._extra, self.build.built)

    @functools.cached_property
    def module_sites(self) -> ModuleSites:
        """Patch sites of modules, by their tables in memory."""
        from orcdbg.patches.module_sites import ModuleSites

        return ModuleSites(self.build.linux, self.build.image.section_data(ALTERNATIVES))

    @functools.cached_property
    def _jumps(self) -> Sequence[PatchPass]:
        # Judging one indirect call asks for these and for no other pass: making all of them costs more than the walk. A
        # table that cannot be read is an error here: without a jump that may be patched in, a register would be taken for
        # saved on all paths that is not.
        from orcdbg.patches.mechanisms.jump_label import JUMP_LABEL

        return JUMP_LABEL.make(self.build, ())

    def jumps_between(self, start: int, end: int) -> dict[int, int]:
        """Where jumps go that static branches may have had in [start, end), by where they are."""
        from orcdbg.patches.mechanisms.jump_label import branches_between

        return branches_between(self._jumps, start, end)
