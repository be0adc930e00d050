"""Where inside patched text does the ORC row that the kernel would use give another CFA than the instructions do?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.overlay import OrcOverlay
from orcdbg.orc.table import OrcEntry
from orcdbg.patches.kernel_code import KernelCode
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite
from orcdbg.x86.stack_effects import stack_boundaries

Stated = Callable[[int], tuple[OrcEntry | None, CfaRule | None]]


@dataclass(frozen=True, slots=True)
class CheckedBoundary:
    """An instruction boundary inside a site: what the row there states, and what the instructions up to it make true."""

    address: int
    after: str
    stated: CfaRule
    true: CfaRule

    @property
    def agrees(self) -> bool:
        """True where the row holds."""
        return self.stated == self.true


@dataclass(frozen=True, slots=True)
class Hazard:
    """A boundary where the row does not hold, and the patch that made it so."""

    boundary: CheckedBoundary
    site: PatchSite


@dataclass(slots=True)
class CheckReport:
    """All hazards, and how much was looked at; `unread` counts sites whose text is not to be had."""

    hazards: list[Hazard]
    sites: int = 0
    boundaries: int = 0
    unread: int = 0

    def look_at(self, clusters: Iterable[Cluster], text: AddressSpace, stated: Stated) -> None:
        """Compares rows and instructions, as they are in `text`, at every boundary inside the clusters."""
        for cluster in clusters:
            self.sites += 1
            try:
                code = text.read(cluster.address, len(cluster.image))
            except MemoryFault:
                self.unread += 1
                continue
            for found in compare(code, cluster.address, stated):
                self.boundaries += 1
                if not found.agrees:
                    self.hazards.append(Hazard(found, cluster.covering(found.address)))


def check_kernel(code: KernelCode, overlay: OrcOverlay) -> CheckReport:
    """Compares, at every boundary inside patched sites, the kernel's rows with the instructions; modules too.

    Raises:
        NotFound: there is no image, so nobody knows which places were patched.
    """
    patches = code.patches
    patches.need_image("which places were patched")
    report = CheckReport([])
    start, end = patches.build.text
    core = (one for one in patches.stack_ledger.clusters() if start <= one.address < end and one.sites)
    report.look_at(core, code.text, overlay.stated)
    for module in code.names.modules:
        report.look_at(patches.module_sites.of(module), code.text, overlay.stated)
    return report


def compare(text: bytes, address: int, stated: Stated) -> Iterator[CheckedBoundary]:
    """The boundaries inside `text` at which row and instructions can be compared.

    Left out are those whose CFA does not follow from the stack pointer (rows on rbp hold whatever is pushed), those behind
    a call of other code or an instruction that sets rsp outright, and those where a row of another type begins.
    """
    start_entry, start = stated(address)
    if start_entry is None or start is None or not start.counts_from_sp:
        return
    for found in stack_boundaries(text, address).values():
        if found.before is None or found.pushed is None or found.after_call or found.address >= address + len(text):
            continue
        entry, rule = stated(found.address)
        if entry is None or rule is None or not rule.counts_from_sp:
            continue
        if entry.row.type is start_entry.row.type:
            yield CheckedBoundary(found.address, found.before.text, rule, start.moved(found.pushed))
