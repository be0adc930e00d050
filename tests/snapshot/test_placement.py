"""The kernel's place by what the CPUs' registers point at, whichever page their page table lies on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orcdbg.base.errors import Absence, MemoryFault, NotInSnapshot, OrcdbgError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.placement import find_kernel, find_placement
from orcdbg.target.session import Session

EVEN = 0x4000_0000  # above all memory of the sample


class WithTableAt:
    """The sample's memory, and a copy of its top page table at another page."""

    def __init__(self, memory: AddressSpace, table: bytes, at: int, beside: bytes | None) -> None:
        self._memory, self._pages = memory, {at: table}
        if beside is not None:
            self._pages[at ^ PAGE] = beside

    def read(self, address: int, size: int) -> bytes:
        """As an AddressSpace."""
        page = self._pages.get(address & -PAGE)
        if page is not None:
            return page[address % PAGE :][:size]
        if address >= EVEN:
            raise NotInSnapshot("physical", address, size, Absence.ABSENT)
        return self._memory.read(address, size)


def moved(sample: Session, at: int, cr3: int, beside: bytes | None) -> Snapshot:
    """The sample's machine, of which only CR3 and IDT tell, with its page table at `at`."""
    snapshot = sample.snapshot
    table = snapshot.physical.read(sample.placement.root, PAGE)
    cpus = [replace(cpu, cr3=cr3, idt=cpu.idt) for cpu in snapshot.cpus]
    return replace(snapshot, physical=WithTableAt(snapshot.physical, table, at, beside), cpus=cpus, vmcoreinfo={})


@pytest.mark.parametrize("beside", [None, bytes(PAGE), b"\xff" * PAGE])
@pytest.mark.parametrize(("at", "cr3"), [(EVEN, EVEN), (EVEN, EVEN | PAGE), (EVEN | PAGE, EVEN | PAGE)])
def test_a_page_table_may_lie_on_any_page(sample: Session, at: int, cr3: int, beside: bytes | None) -> None:
    """Bit 12 of CR3 is the user's half under page table isolation, and a bit of the address without it."""
    snapshot = moved(sample, at, cr3 | 0x5, beside)
    wanted = sample.placement
    found = find_kernel(snapshot)
    assert (found.placement.root, found.placement.slide) == (at, wanted.slide)
    assert found.start <= sample.linux.address("_text") < found.end
    by_symbols = find_placement(snapshot, lambda name: None if name == "init_top_pgt" else sample.link_address(name))
    assert (by_symbols.root, by_symbols.slide, by_symbols.phys_base) == (at, wanted.slide, wanted.phys_base)


def test_registers_that_point_nowhere_tell_nothing(sample: Session) -> None:
    """No table at either page."""
    snapshot = moved(sample, EVEN, EVEN + 4 * PAGE, None)
    with pytest.raises(MemoryFault):
        snapshot.physical.read(EVEN + 4 * PAGE, 8)
    with pytest.raises(OrcdbgError, match="cannot tell where the kernel lies"):
        find_kernel(snapshot)
