"""Which of the recorded CPUs run this kernel, and not another program in the same memory?

A guest that was dumped while its capture kernel runs has CPUs of two kernels, which may lie at the same addresses; one that
was dumped early in its boot has CPUs that still are in the firmware. Each is told by its page tables: do they lead to this
kernel's text?
"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.base.errors import BadAddress, MemoryFault
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.pagetables import KernelMemory, roots_of
from orcdbg.snapshot.placement import Placement


def own_cpus(snapshot: Snapshot, place: Placement, text: int | None) -> Sequence[CpuState]:
    """The states of CPUs whose page tables have this kernel's text where it is, or cannot be read; all that name none.

    Args:
        snapshot: with the states.
        place: where this kernel is.
        text: run-time address of its text; None where that is not known.
    """
    if text is None:
        return snapshot.cpus
    return [cpu for cpu in snapshot.cpus if cpu.cr3 is None or _leads_to(snapshot, place, cpu.cr3, text)]


def _leads_to(snapshot: Snapshot, place: Placement, cr3: int, text: int) -> bool:
    for root in roots_of(cr3 & ~place.sme_mask):
        memory = KernelMemory(snapshot.physical, root, place.levels, place.sme_mask)
        try:
            if memory.translate(text) == text - KERNEL_BASE + place.phys_base:
                return True
        except BadAddress:
            continue
        except MemoryFault:
            return True  # its page tables are not in the snapshot
    return False
