"""CPUs of two kernels in one memory, told by their page tables."""

from __future__ import annotations

import pytest

from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.own_cpus import own_cpus
from orcdbg.snapshot.placement import PlacedBy, Placement, PlacementSource
from tests.build.memory import PageTableBuilder, SparseMemory

TEXT, OURS, THEIRS = 0xFFFFFFFF81000000, 0x1000000, 0x9000000
KERNEL_HALF, USER_HALF = 0x300000, 0x1000


def tables(physical: SparseMemory, first: int, target: int) -> int:
    """Page tables that have the text at a physical address; their root."""
    builder = PageTableBuilder(4, first)
    builder.map(TEXT, target, 21)
    builder.write(physical)
    return builder.root


def kept(*roots: int | None, physical: SparseMemory) -> list[int | None]:
    """Which of CPUs with these page tables run our kernel."""
    cpus = [CpuState(number, "note", {}, number + 1, root) for number, root in enumerate(roots)]
    place = Placement(0, 0, 0, 4, 0, PlacementSource(PlacedBy.OPTIONS))
    found = own_cpus(Snapshot("core", "ELF", physical, cpus, {}), place, TEXT)
    return [cpu.cr3 for cpu in found]


@pytest.fixture
def memory() -> SparseMemory:
    """Physical memory."""
    return SparseMemory("physical")


def test_a_cpu_of_another_kernel_is_none_of_ours(memory: SparseMemory) -> None:
    """It may lie at the same virtual addresses; a CPU in the firmware has no such page tables at all."""
    ours, theirs = tables(memory, 0x100000, OURS), tables(memory, 0x200000, THEIRS)
    memory.put(0, bytes(4096))
    assert kept(ours, theirs, 0, physical=memory) == [ours]


def test_the_users_half_belongs_to_its_kernel(memory: SparseMemory) -> None:
    """Under page table isolation it lies in the page behind the kernel's; the low bits of CR3 are no address."""
    memory.put(KERNEL_HALF, memory.read(tables(memory, 0x100000, OURS), 4096) + bytes(4096))
    assert kept(KERNEL_HALF | USER_HALF | 0x7, physical=memory) == [KERNEL_HALF | USER_HALF | 0x7]


def test_what_cannot_be_told_is_kept(memory: SparseMemory) -> None:
    """Page tables that are not in the snapshot speak against nobody, nor does a note without CR3."""
    assert kept(0x700000, None, physical=memory) == [0x700000, None]
