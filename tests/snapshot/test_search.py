"""A kernel in memory that no note speaks for is found by its note or its banner, and only where page tables lead to it."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from orcdbg.base.errors import NotInSnapshot, OrcdbgError
from orcdbg.base.reading import AddressSpace
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.placement import PlacedBy, find_placement
from orcdbg.snapshot.search import NOTE, find_marks
from orcdbg.target.session import Session
from tests.build.elf import note
from tests.build.memory import PageTableBuilder, SparseMemory

BANNER = b"Linux version 6.1.0-test (a@b) #1 SMP\n"
TEXT, BANNER_AT, ROOT = KERNEL_BASE + 0x1000000, 0x1800200, 0x2600000  # link addresses, the latter two in the image
SYMBOLS = {"_text": TEXT, "linux_banner": KERNEL_BASE + BANNER_AT, "init_top_pgt": KERNEL_BASE + ROOT}


class Kernels:
    """Physical memory with kernels in it, each at its own place."""

    def __init__(self) -> None:
        self.memory = SparseMemory("physical")

    def add(self, loaded: int, slide: int, levels: int = 4, with_note: bool = False) -> None:
        """A kernel whose link base is at physical `loaded` and that runs `slide` above its link addresses."""
        tables = PageTableBuilder(levels)
        tables.tables = {}
        tables._next = tables.root = ROOT + loaded
        tables._new_table()
        for part in (TEXT, KERNEL_BASE + BANNER_AT):
            large = part >> 21 << 21
            tables.map(large + slide, large - KERNEL_BASE + loaded, 21)
        tables.write(self.memory)
        self.memory.put(BANNER_AT + loaded, BANNER + bytes(100))
        if with_note:
            info = f"OSRELEASE=6.1.0\nKERNELOFFSET={slide:x}\nNUMBER(phys_base)={loaded - slide}\n"
            info += f"SYMBOL(init_top_pgt)={KERNEL_BASE + ROOT + slide:x}\nNUMBER(pgtable_l5_enabled)={levels == 5:d}\n"
            self.memory.put(loaded + 0x3000000, note("VMCOREINFO", 0, info.encode()))

    def snapshot(self) -> Snapshot:
        """A machine of which only memory is known."""
        pieces = sorted((start, start + len(data)) for start, data in self.memory.pieces.items())
        return Snapshot("memory", "raw memory", self.memory, [], {}, (), lambda: iter(pieces))


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("with_note", [False, True])
@pytest.mark.parametrize(("loaded", "slide"), [(0, 0), (0x7A00000, 0x12C00000), (0x40000000, 0x3E00000)])
def test_a_kernel_is_found_wherever_it_lies(levels: int, with_note: bool, loaded: int, slide: int) -> None:
    """Slide, phys_base, root and levels are those it was put at."""
    kernels = Kernels()
    kernels.add(loaded, slide, levels, with_note)
    found = find_placement(kernels.snapshot(), SYMBOLS.get, read_banner=lambda: BANNER)
    assert (found.slide, found.phys_base, found.levels) == (slide, loaded - slide, levels)
    assert found.root == ROOT + loaded
    assert (found.source.kind is PlacedBy.VMCOREINFO_IN_MEMORY) == with_note


def test_several_kernels_are_listed_and_the_user_chooses() -> None:
    """Each with the options that mean it."""
    kernels = Kernels()
    kernels.add(0, 0x200000, with_note=True)
    kernels.add(0x20000000, 0)
    with pytest.raises(OrcdbgError, match="2 kernels") as caught:
        find_placement(kernels.snapshot(), SYMBOLS.get, read_banner=lambda: BANNER)
    assert "--kaslr 0x200000 --phys-base -0x200000" in caught.value.message
    assert "--kaslr 0x0 --phys-base 0x20000000" in caught.value.message
    chosen = find_placement(kernels.snapshot(), SYMBOLS.get, 0, 0x20000000)
    assert chosen.root == ROOT + 0x20000000


def test_left_over_notes_and_banners_are_not_believed() -> None:
    """Of kernels that are gone: no page tables lead to them."""
    kernels = Kernels()
    kernels.add(0x4000000, 0, with_note=True)
    kernels.memory.put(0x30000000, BANNER)
    stale = b"OSRELEASE=6.1.0\nKERNELOFFSET=0\nNUMBER(phys_base)=1073741824\n"
    kernels.memory.put(0x31000000, note("VMCOREINFO", 0, stale))
    kernels.memory.put(0x32000000, note("VMCOREINFO", 0, b"OSRELEASE=6.1.0\nKERNELOFFSET=zz\nNUMBER(phys_base)=0\n"))
    kernels.memory.put(0x33000000, struct.pack("<III", 11, 1 << 31, 0) + NOTE + bytes(100))
    found = find_placement(kernels.snapshot(), SYMBOLS.get, read_banner=lambda: BANNER)
    assert found.phys_base == 0x4000000
    with pytest.raises(OrcdbgError, match="nor was this image's kernel"):
        find_placement(kernels.snapshot(), SYMBOLS.get, read_banner=lambda: b"Linux version 6.2")


class Holed:
    """Memory of which one page in three is missing."""

    def __init__(self, memory: AddressSpace) -> None:
        self._memory = memory

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, where there is any."""
        for page in range(address // 4096, (address + size - 1) // 4096 + 1):
            if page % 3 == 2:
                raise NotInSnapshot("physical", page * 4096, size)
        return self._memory.read(address, size)


def test_marks_are_found_across_pieces_and_around_holes() -> None:
    """Each place once."""
    memory = SparseMemory("physical")
    data = bytearray(9 << 20)
    places = [0, 4096 * 4 - 3, (1 << 22) - 5, (1 << 22) + 4096, (9 << 20) - 10]
    for place in places:
        data[place : place + 10] = b"0123456789"
    memory.put(0x100000, bytes(data))
    whole = Snapshot("memory", "raw", memory, [], {}, (), lambda: iter([(0x100000, 0x100000 + len(data))]))
    assert find_marks(whole, {"mark": b"0123456789"})["mark"] == [0x100000 + place for place in places]
    holed = find_marks(replace(whole, physical=Holed(memory)), {"mark": b"0123456789"})["mark"]
    readable = [place + 0x100000 for place in places if all((place + 0x100000 + i) // 4096 % 3 != 2 for i in (0, 9))]
    assert [place for place in holed if place in readable] == holed
    assert len(holed) >= len([place for place in readable if place % 4096 < 4000])


def test_the_sample_without_its_note_is_found(sample: Session) -> None:
    """The bundled kernel, by what is in its memory."""
    bare = replace(sample.snapshot, vmcoreinfo={}, cpus=[])
    found = Session(sample.image, bare).placement
    assert found.source.kind is PlacedBy.BANNER_IN_MEMORY
    assert replace(found, source=sample.placement.source) == sample.placement
