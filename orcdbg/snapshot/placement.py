"""Where did the boot put this kernel: how far from its link addresses, at which physical address, under which page table?

VMCOREINFO says it; without one, the IDT that QEMU's notes point at says it: its first handler's address is known as
linked and as running; without those, all memory is searched. What was found is then checked by reading the kernel's
banner and build-id back.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from orcdbg.base.errors import Absence, MemoryFault, NotInSnapshot, OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.base.sizes import PAGE
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.pagetables import KernelMemory, roots_of
from orcdbg.snapshot.search import NOTE, find_marks, read_note, roots_by_banner
from orcdbg.snapshot.vmcoreinfo import number
from orcdbg.x86.paging import CR4_LA57

IMAGE_SPAN = 1 << 30  # the image area of a kernel with KASLR
# Where the kernel maps its interrupt table on every CPU (CPU_ENTRY_AREA_RO_IDT, arch/x86/include/asm/pgtable_areas.h).
MAPPED_IDT = 0xFFFF_FE00_0000_0000
LINKED_AT = KERNEL_BASE + (16 << 20)  # CONFIG_PHYSICAL_START as every distribution has it
_LARGE_PAGE = 2 << 20
_DIVIDE_ERROR = ("asm_exc_divide_error", "divide_error")

FindAddress = Callable[[str], int | None]

NO_PLACEMENT = "cannot tell where the kernel lies in this snapshot: it has no VMCOREINFO and no usable CPU registers"
HINT = (
    "give --kaslr SLIDE and --phys-base BASE; for a QEMU guest, start it with -device vmcoreinfo and load qemu_fw_cfg"
)


class PlacedBy(enum.Enum):
    """What told where the kernel lies; the values are its words, with a CPU's number or a physical address to be put in."""

    OPTIONS = "--kaslr and --phys-base"
    VMCOREINFO = "VMCOREINFO"
    CPU_REGISTERS = "CR3 and IDT of CPU {}"
    INTERRUPT_TABLE = "the interrupt table in memory"
    VMCOREINFO_IN_MEMORY = "VMCOREINFO found in memory at {:#x}"
    BANNER_IN_MEMORY = "the banner found in memory at {:#x}"


@dataclass(frozen=True, slots=True)
class PlacementSource:
    """What told where the kernel lies, and which CPU it was of, or at which physical address it stood."""

    kind: PlacedBy
    number: int | None = None

    def __str__(self) -> str:
        return self.kind.value.format(self.number)


@dataclass(frozen=True, slots=True)
class Placement:
    """The kernel's place: run-time address = link address + `slide`; physical = run-time - KERNEL_BASE + `phys_base`.

    Attributes:
        slide: in bytes, what KASLR added to link addresses.
        phys_base: the kernel's variable of that name (arch/x86/kernel/head_64.S).
        root: physical address of the top page table.
        levels: of page tables, 4 or 5.
        sme_mask: the bit of page table entries that means encryption (sme_me_mask), 0 without.
        source: what told.
        contradicted: what told otherwise: memory has the banner where `source` says, and not there.
    """

    slide: int
    phys_base: int
    root: int
    levels: int
    sme_mask: int
    source: PlacementSource
    contradicted: tuple[PlacementSource, ...] = ()


def _from_vmcoreinfo(info: Mapping[str, str], find_address: FindAddress) -> Placement | None:
    slide = number(info, "KERNELOFFSET", 16)
    phys_base = number(info, "NUMBER(phys_base)", 10)
    if slide is None or phys_base is None:
        return None
    root = number(info, "SYMBOL(init_top_pgt)", 16) or number(info, "SYMBOL(swapper_pg_dir)", 16)
    if root is None:
        link = find_address("init_top_pgt")
        if link is None:
            return None
        root = link + slide
    levels = 5 if number(info, "NUMBER(pgtable_l5_enabled)", 10) else 4
    sme_mask = number(info, "NUMBER(sme_mask)", 10) or 0
    source = PlacementSource(PlacedBy.VMCOREINFO)
    return Placement(slide, phys_base, root - KERNEL_BASE + phys_base, levels, sme_mask, source)


def _idt_handler(memory: AddressSpace, idt: int) -> int:
    """Address of the first gate's handler (struct gate_struct)."""
    low = read_u64(memory, idt)
    high = read_u64(memory, idt + 8)
    return (low & 0xFFFF) | (low >> 48) << 16 | (high & 0xFFFF_FFFF) << 32


def find_slide(memory: AddressSpace, find_address: FindAddress) -> int | None:
    """Run-time minus link address by the interrupt table in virtual memory, None where that does not tell."""
    link = _first_handler(find_address)
    if link is None:
        return None
    try:
        slide = _idt_handler(memory, MAPPED_IDT) - link
    except MemoryFault:
        return None
    return slide if 0 <= slide < IMAGE_SPAN and not slide % PAGE else None


def _first_handler(find_address: FindAddress) -> int | None:
    return next((found for name in _DIVIDE_ERROR if (found := find_address(name)) is not None), None)


class _Handler(NamedTuple):
    """A CPU's first interrupt handler by the page table it ran on: run-time and physical address, and whose it is."""

    memory: KernelMemory
    address: int
    physical: int
    source: PlacementSource

    @property
    def phys_base(self) -> int:
        return self.physical - (self.address - KERNEL_BASE)


def _handlers(snapshot: Snapshot) -> Iterator[_Handler]:
    """What the CPUs' registers point at, by each table that CR3 can mean: the kernel's half comes before the user's."""
    for cpu in snapshot.cpus:
        if cpu.cr3 is None or cpu.idt is None:
            continue
        for root in roots_of(cpu.cr3):
            memory = KernelMemory(snapshot.physical, root, 5 if (cpu.cr4 or 0) & CR4_LA57 else 4)
            try:
                address = _idt_handler(memory, cpu.idt)
                source = PlacementSource(PlacedBy.CPU_REGISTERS, cpu.cpu)
                yield _Handler(memory, address, memory.translate(address), source)
            except MemoryFault:
                continue


def _from_cpus(snapshot: Snapshot, find_address: FindAddress) -> Placement | None:
    link = _first_handler(find_address)
    if link is None:
        return None
    for found in _handlers(snapshot):
        slide, base, memory = found.address - link, found.phys_base, found.memory
        if 0 <= slide < IMAGE_SPAN and not slide % PAGE:
            root = _kernel_root(snapshot, find_address, slide, base, memory.levels, found.address) or memory.root
            return Placement(slide, base, root, memory.levels, 0, found.source)
    return None


def _kernel_root(
    snapshot: Snapshot, find_address: FindAddress, slide: int, phys_base: int, levels: int, address: int
) -> int | None:
    """The kernel's own top page table, if it maps `address`: CR3's is a process's, which on a live guest may end."""
    link = find_address("init_top_pgt")
    if link is None:
        return None
    root = link + slide - KERNEL_BASE + phys_base
    try:
        found = KernelMemory(snapshot.physical, root, levels).translate(address)
    except MemoryFault:
        return None
    return root if found == address - KERNEL_BASE + phys_base else None


def _from_options(snapshot: Snapshot, find_address: FindAddress, slide: int, phys_base: int) -> Placement:
    link = find_address("init_top_pgt")
    if link is None:
        raise OrcdbgError("--kaslr and --phys-base are of no use: the image has no symbol init_top_pgt")
    levels = 5 if any((cpu.cr4 or 0) & CR4_LA57 for cpu in snapshot.cpus) else 4
    text = find_address("_text")
    if text is not None and _kernel_root(snapshot, find_address, slide, phys_base, 9 - levels, text + slide):
        levels = 9 - levels  # no register tells, and the tables are of the other kind
    root = link + slide - KERNEL_BASE + phys_base
    return Placement(slide, phys_base, root, levels, 0, PlacementSource(PlacedBy.OPTIONS))


class FoundKernel(NamedTuple):
    """A kernel that no file is at hand for: its place, and run-time addresses [start, end) between which it lies."""

    placement: Placement
    start: int
    end: int


def find_kernel(snapshot: Snapshot) -> FoundKernel:
    """The kernel in `snapshot`, without an image: by VMCOREINFO, or by what the CPUs' registers point at.

    Without VMCOREINFO the slide is counted from where nearly all kernels are linked, 16 MiB above the base.

    Args:
        snapshot: the stopped machine.

    Raises:
        OrcdbgError: nothing in the snapshot tells where it is.
    """
    place = _from_vmcoreinfo(snapshot.vmcoreinfo, lambda name: None)
    if place is not None:
        memory = KernelMemory(snapshot.physical, place.root, place.levels, place.sme_mask)
        return FoundKernel(place, *mapped_area(memory, LINKED_AT + place.slide))
    for one in _handlers(snapshot):
        start, end = mapped_area(one.memory, one.address)
        if start < end:
            base, memory = one.phys_base + (start - LINKED_AT), one.memory
            return FoundKernel(
                Placement(start - LINKED_AT, base, memory.root, memory.levels, 0, one.source), start, end
            )
    raise OrcdbgError(NO_PLACEMENT, "give the vmlinux or vmlinuz of this kernel too, with --kaslr and --phys-base")


def mapped_area(memory: KernelMemory, inside: int) -> tuple[int, int]:
    """The run-time addresses around one of them that are mapped without a gap of 2 MiB."""
    start = end = inside & -_LARGE_PAGE
    while end < KERNEL_BASE + IMAGE_SPAN and memory.is_mapped(end):
        end += _LARGE_PAGE
    while start > KERNEL_BASE and memory.is_mapped(start - _LARGE_PAGE):
        start -= _LARGE_PAGE
    return start, end


class _Agreement(enum.Enum):
    """Whether memory has the image's banner where a placement says."""

    YES = enum.auto()
    NO = enum.auto()
    LEFT_OUT = enum.auto()  # memory that would tell is not in the snapshot, and was not to be


def _agreement(snapshot: Snapshot, place: Placement, address: int, banner: bytes) -> _Agreement:
    """What memory says of a placement, by the link address of the image's banner."""
    memory = KernelMemory(snapshot.physical, place.root, place.levels, place.sme_mask)
    try:
        memory.translate(address + place.slide)
    except NotInSnapshot as error:
        return _Agreement.NO if error.state is Absence.ABSENT else _Agreement.LEFT_OUT
    except MemoryFault:
        return _Agreement.NO
    try:
        found = memory.read(address + place.slide, len(banner))
    except MemoryFault:
        return _Agreement.LEFT_OUT  # its page tables are those of a kernel
    return _Agreement.YES if found == banner else _Agreement.NO


def _told(snapshot: Snapshot, find_address: FindAddress) -> Iterator[Placement]:
    """What is told without a search, the best first."""
    for place in (_from_vmcoreinfo(snapshot.vmcoreinfo, find_address), _from_cpus(snapshot, find_address)):
        if place is not None:
            yield place


def _candidates(snapshot: Snapshot, find_address: FindAddress, banner: bytes, link: int) -> Iterator[Placement]:
    """Where kernels of this build may lie, by the notes in memory and then by the banner."""
    marks = find_marks(snapshot, {"note": NOTE, "banner": banner})
    for mark in marks["note"]:
        try:
            found = _from_vmcoreinfo(read_note(snapshot, mark), find_address)
        except UnsupportedFormat:
            continue
        if found is not None:
            header = mark - 12  # struct elf_note, before the owner's name
            yield replace(found, source=PlacementSource(PlacedBy.VMCOREINFO_IN_MEMORY, header))
    root, text = find_address("init_top_pgt"), find_address("_text")
    if root is None or text is None:
        return
    for mark in marks["banner"]:
        for slide, phys_base, table, levels in roots_by_banner(snapshot, mark, link, root, text):
            source = PlacementSource(PlacedBy.BANNER_IN_MEMORY, mark)
            yield Placement(slide, phys_base, table, levels, 0, source)


def _searched(snapshot: Snapshot, find_address: FindAddress, banner: bytes) -> Placement:
    """The place of the one kernel of this build in all memory.

    Raises:
        OrcdbgError: there is none, or there are several.
    """
    link = find_address("linux_banner")
    if link is None or not banner:
        raise OrcdbgError(NO_PLACEMENT, HINT)
    found: dict[tuple[int, int], Placement] = {}
    for place in _candidates(snapshot, find_address, banner, link):
        if _agreement(snapshot, place, link, banner) is _Agreement.YES:
            found.setdefault((place.slide, place.phys_base), place)
    if not found:
        raise OrcdbgError(f"{NO_PLACEMENT}; nor was this image's kernel found in its memory", HINT)
    if len(found) > 1:
        places = "; ".join(
            f"--kaslr {one.slide:#x} --phys-base {one.phys_base:#x} ({one.source})" for one in found.values()
        )
        raise OrcdbgError(
            f"{len(found)} kernels of this build are in this memory: {places}",
            "choose one by giving its two options",
        )
    return next(iter(found.values()))


def find_placement(
    snapshot: Snapshot,
    find_address: FindAddress,
    slide: int | None = None,
    phys_base: int | None = None,
    read_banner: Callable[[], bytes] = bytes,
) -> Placement:
    """The kernel's place in `snapshot`.

    Args:
        snapshot: the stopped machine.
        find_address: gives the link address of a symbol of the image.
        slide: what the user gave with `--kaslr`.
        phys_base: what the user gave with `--phys-base`.
        read_banner: gives the image's banner, by which its kernel is known in memory that has to be searched.

    Raises:
        OrcdbgError: nothing in the snapshot tells, or more than one kernel is in it, and the user did not say either.
    """
    if slide is not None and phys_base is not None:
        return _from_options(snapshot, find_address, slide, phys_base)
    link, banner = find_address("linux_banner"), read_banner()
    told: list[tuple[Placement, _Agreement]] = []
    for place in _told(snapshot, find_address):
        if link is None or not banner:
            return place
        agreement = _agreement(snapshot, place, link, banner)
        if agreement is _Agreement.YES:
            return replace(place, contradicted=tuple(one.source for one, _ in told))
        told.append((place, agreement))

    undecided = next((place for place, agreement in told if agreement is _Agreement.LEFT_OUT), None)
    if undecided is not None:
        return undecided
    try:
        found = _searched(snapshot, find_address, banner)
    except OrcdbgError:
        if not told:
            raise
        return told[0][0]  # the session says that nothing was found there
    return replace(found, contradicted=tuple(one.source for one, _ in told))
