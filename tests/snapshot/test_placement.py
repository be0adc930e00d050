"""The kernel's place by what the CPUs' registers point at, whichever page their page table lies on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orcdbg.base.errors import Absence, MemoryFault, Mismatch, NotInSnapshot, OrcdbgError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import Note
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.notes import VMCOREINFO, vmcoreinfo_of
from orcdbg.snapshot.placement import PlacedBy, find_kernel, find_placement
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


def told_otherwise(sample: Session, changes: dict[str, str], **others: object) -> Snapshot:
    """The sample's machine with other lines in its VMCOREINFO."""
    return replace(sample.snapshot, vmcoreinfo={**sample.snapshot.vmcoreinfo, **changes}, **others)  # type: ignore[arg-type]


WRONG = (
    {"NUMBER(phys_base)": "16777216"},
    {"NUMBER(phys_base)": "-16777216"},
    {"NUMBER(phys_base)": str(1 << 40)},
    {"NUMBER(pgtable_l5_enabled)": "0"},
    {"SYMBOL(init_top_pgt)": "ffffffff81c0f000", "SYMBOL(swapper_pg_dir)": "ffffffff81c0f000"},
)


@pytest.mark.parametrize("changes", WRONG)
def test_what_memory_contradicts_is_not_believed(sample: Session, changes: dict[str, str]) -> None:
    """The CPUs' registers tell; without them, a search of memory. The session says so, and shows the same tasks."""
    of_cpus = Session(sample.image, told_otherwise(sample, changes))
    assert of_cpus.placement.source.kind is PlacedBy.CPU_REGISTERS
    searched = Session(sample.image, told_otherwise(sample, changes, cpus=()))
    assert searched.placement.source.kind in (PlacedBy.VMCOREINFO_IN_MEMORY, PlacedBy.BANNER_IN_MEMORY)
    for session in (of_cpus, searched):
        assert (session.slide, session.placement.phys_base) == (sample.slide, sample.placement.phys_base)
        assert [task.pid for task in session.tasks] == [task.pid for task in sample.tasks]
        assert told(session) in session.warnings


def told(session: Session) -> str:
    """The session's warning."""
    return (
        f"VMCOREINFO is not used: the kernel's banner is not where it says, but where {session.placement.source} says"
    )


def test_what_memory_confirms_is_believed_before_what_it_leaves_open(sample: Session) -> None:
    """Where this slide leads, the bundled sample has no memory; the registers lead to the banner."""
    session = Session(sample.image, told_otherwise(sample, {"KERNELOFFSET": "1000000"}))
    assert session.placement.source.kind is PlacedBy.CPU_REGISTERS
    assert session.slide == sample.slide
    assert told(session) in session.warnings


def test_what_the_snapshot_does_not_hold_contradicts_nothing(sample: Session) -> None:
    """Memory without the banner's page is no proof of another place."""
    banner = sample.memory.translate(sample.linux.address("linux_banner"))
    snapshot = replace(sample.snapshot, physical=Without(sample.snapshot.physical, banner & -PAGE))
    session = Session(sample.image, snapshot)
    assert session.placement == sample.placement
    assert any("banner cannot be read" in warning for warning in session.warnings)


class Without:
    """Memory without one page."""

    def __init__(self, memory: AddressSpace, page: int) -> None:
        self._memory, self._page = memory, page

    def read(self, address: int, size: int) -> bytes:
        """As an AddressSpace."""
        if address < self._page + PAGE and address + size > self._page:
            raise NotInSnapshot("physical", address, size, Absence.ABSENT)
        return self._memory.read(address, size)


@pytest.mark.parametrize("lines", [["KERNELOFFSET"], ["NUMBER(phys_base)"], ["KERNELOFFSET", "NUMBER(phys_base)"]])
def test_a_missing_line_is_made_up_for(sample: Session, lines: list[str]) -> None:
    """By what the CPUs' registers point at."""
    info = {key: value for key, value in sample.snapshot.vmcoreinfo.items() if key not in lines}
    session = Session(sample.image, replace(sample.snapshot, vmcoreinfo=info))
    assert (session.slide, session.placement.phys_base) == (sample.slide, sample.placement.phys_base)
    assert session.placement.source.kind is PlacedBy.CPU_REGISTERS


def test_of_several_vmcoreinfos_the_one_of_the_build_is_taken(sample: Session) -> None:
    """The first may be that of the kernel that wrote the dump."""
    foreign = b"OSRELEASE=1.2.3\nBUILD-ID=" + b"ab" * 20 + b"\nNUMBER(phys_base)=4096\n"
    own = next(note for note in sample.snapshot.notes if note.name == VMCOREINFO)
    notes = [Note(VMCOREINFO, 0, foreign), *sample.snapshot.notes]
    first = replace(sample.snapshot, notes=notes, vmcoreinfo=vmcoreinfo_of(notes))
    session = Session(sample.image, first)
    assert session.snapshot.vmcoreinfo == vmcoreinfo_of([own])
    assert session.placement == sample.placement
    assert f"another VMCOREINFO is used than the first, which is of build {'ab' * 20}" in session.warnings
    with pytest.raises(Mismatch, match="build-id"):
        Session(sample.image, replace(first, notes=notes[:1]))
