"""Virtual to physical, by page tables that the tests build."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import BadAddress, NotInSnapshot
from orcdbg.snapshot.pagetables import KernelMemory
from tests.build.memory import PageTableBuilder, SparseMemory

TEXT = 0xFFFFFFFF81000000


def _memory(levels: int, *mappings: tuple[int, int, int]) -> tuple[KernelMemory, SparseMemory]:
    builder, physical = PageTableBuilder(levels), SparseMemory("physical")
    for virtual, target, shift in mappings:
        builder.map(virtual, target, shift)
    builder.write(physical)
    return KernelMemory(physical, builder.root, levels), physical


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("shift", [12, 21, 30])
@given(offset=st.integers(0, (1 << 30) - 1))
def test_every_byte_of_a_page_is_found_by_its_offset(levels: int, shift: int, offset: int) -> None:
    """Pages of 4 KiB, 2 MiB and 1 GiB, with 4 and 5 levels: physical = page + offset."""
    base = 0xFFFF_FF00_0000_0000 & ~((1 << 30) - 1)
    memory, _ = _memory(levels, (base, 1 << 30, shift))
    inside = offset & ((1 << shift) - 1)
    assert memory.translate(base + inside) == (1 << 30) + inside


def test_a_read_runs_over_pages_that_lie_apart() -> None:
    """Neighbours in virtual memory need not be neighbours in physical memory."""
    memory, physical = _memory(4, (TEXT, 0x5000, 12), (TEXT + 4096, 0x3000, 12))
    physical.put(0x5000, b"a" * 4096)
    physical.put(0x3000, b"b" * 4096)
    assert memory.read(TEXT + 4090, 12) == b"a" * 6 + b"b" * 6


@pytest.mark.parametrize("address", [0, 8, 0x1000, 0x7FFF_FFFF_F000])
def test_null_and_low_addresses_fault(address: int) -> None:
    """No user address is mapped in the kernel's tables, whatever p_vaddr a core's headers claim."""
    memory, _ = _memory(4, (TEXT, 0x5000, 12))
    with pytest.raises(BadAddress):
        memory.read(address, 8)


@pytest.mark.parametrize(("levels", "address"), [(4, 0xFF11_0000_0000_0000), (4, 1 << 63), (5, 0x8000_0000_0000_0000)])
def test_an_address_that_is_not_canonical_faults(levels: int, address: int) -> None:
    """Bits above the top level must repeat its highest bit."""
    memory, _ = _memory(levels, (TEXT, 0x5000, 12))
    with pytest.raises(BadAddress):
        memory.read(address, 1)


def test_a_missing_page_table_is_not_a_missing_mapping() -> None:
    """The two are different errors: one machine has no page there, the other's snapshot has no table."""
    builder, physical = PageTableBuilder(4), SparseMemory("physical")
    builder.map(TEXT, 0x5000)
    builder.write(physical)
    lost = max(builder.tables)
    del physical.pieces[lost]
    with pytest.raises(NotInSnapshot, match="page table|virtual"):
        KernelMemory(physical, builder.root, 4).read(TEXT, 8)


def test_a_table_that_points_at_itself_ends_the_walk() -> None:
    """The walk has as many steps as there are levels, so a cycle only leads to a wrong page, not to a hang."""
    physical = SparseMemory("physical")
    physical.put_words(0x1000, *([0x1000 | 3] * 512))
    assert KernelMemory(physical, 0x1000, 4).translate(TEXT) == 0x1000


def test_encryption_bits_are_not_part_of_an_address() -> None:
    """With memory encryption one bit of every entry is a key bit."""
    builder, physical = PageTableBuilder(4), SparseMemory("physical")
    builder.map(TEXT, 0x5000 | 1 << 47)
    builder.write(physical)
    assert KernelMemory(physical, builder.root, 4, 1 << 47).translate(TEXT + 1) == 0x5001


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("shift", [12, 21, 30])
def test_an_explanation_has_an_entry_a_level_and_the_same_answer(levels: int, shift: int) -> None:
    """Down to the page, whatever its size."""
    memory, _ = _memory(levels, (TEXT & -1 << 30, 1 << 30, shift))
    found = memory.explain((TEXT & -1 << 30) + 0x123)
    assert found.physical == memory.translate((TEXT & -1 << 30) + 0x123)
    assert found.size == 1 << shift
    names = ["PGD", "P4D", "PUD", "PMD", "PTE"] if levels == 5 else ["PGD", "PUD", "PMD", "PTE"]
    assert [entry.level.value for entry in found.entries] == names[: len(names) - (shift - 12) // 9]
    assert all(entry.value & 1 for entry in found.entries)


def test_an_explanation_says_where_it_ends() -> None:
    """At an entry that is not present, at a table that is missing, at an address that cannot be."""
    memory, physical = _memory(4, (TEXT, 0x5000, 12))
    assert memory.explain(TEXT + 4096).why == "the PTE entry is not present"
    assert memory.explain(0).why == "the PGD entry is not present"
    assert memory.explain(1 << 62).why == "not canonical with 4 levels of page tables"
    del physical.pieces[max(physical.pieces)]
    memory.forget()
    assert memory.explain(TEXT).why == "the table with the PTE entry is not in the snapshot"
