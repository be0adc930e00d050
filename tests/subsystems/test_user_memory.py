"""The true state of user pages, over page tables and areas made by code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import BadAddress, NotFound
from orcdbg.base.walks import Budget
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.subsystems.user_memory import SwapPlace, UserMemory, UserPageAbsent, UserPageState
from tests.build.user_tasks import (
    AREA_SIZE,
    FILE_AREA,
    FREE_AREA,
    MADE_AREA,
    PAGE,
    MadeTask,
    swap_entry,
)

ADDRESS = FREE_AREA + 0x3000


def memory_of(made: MadeTask) -> UserMemory:
    """The task's memory, not looked at yet."""
    return made.user_memory()


def test_a_present_page_is_where_its_entry_says() -> None:
    """And is read there, with what is before and behind it."""
    made = MadeTask()
    made.map(ADDRESS, 0x5000, b"hello")
    page = memory_of(made).page(ADDRESS + 2)
    assert (page.state, page.physical, page.size) == (UserPageState.PRESENT, 0x5002, PAGE)
    assert memory_of(made).read(ADDRESS - 2, 7) == b"\0\0hello"


def test_a_page_without_access_is_found_by_its_inverted_frame() -> None:
    """PROT_NONE and NUMA balancing: not present for the CPU, and its memory is all there."""
    made = MadeTask()
    made.enter(ADDRESS, (~0x7000 & 0x000F_FFFF_FFFF_F000) | 1 << 8)
    page = memory_of(made).page(ADDRESS + 5)
    assert (page.state, page.physical) == (UserPageState.NO_ACCESS, 0x7005)


@given(st.integers(0, 22), st.integers(0, (1 << 49) - 1))
def test_a_swapped_page_names_its_file_and_place(type_: int, offset: int) -> None:
    """As __swp_entry() packs them: the type on top, the offset inverted."""
    made = MadeTask()
    made.enter(ADDRESS, swap_entry(type_, offset))
    page = memory_of(made).page(ADDRESS)
    assert (page.state, page.swap) == (UserPageState.SWAPPED, SwapPlace(type_, offset, None))
    with pytest.raises(UserPageAbsent) as caught:
        memory_of(made).read(ADDRESS, 1)
    assert caught.value.state is UserPageState.SWAPPED


@pytest.mark.parametrize(
    ("type_", "offset", "state"),
    [
        (23, 5, UserPageState.HARDWARE_POISON),
        (24, 5, UserPageState.MIGRATING),
        (26, 5, UserPageState.MIGRATING),
        (27, 5, UserPageState.DEVICE),
        (31, 4, UserPageState.GUARD),
        (31, 1, UserPageState.MARKED),
    ],
)
def test_types_behind_swap_files_are_no_swap(type_: int, offset: int, state: UserPageState) -> None:
    """Poison, migration, device memory, markers."""
    made = MadeTask()
    made.enter(ADDRESS, swap_entry(type_, offset))
    page = memory_of(made).page(ADDRESS)
    assert (page.state, page.swap, page.physical) == (state, None, None)


def test_where_no_entry_is_the_area_tells() -> None:
    """Anonymous memory is zeros, a driver's is made on access; outside of all areas nothing is."""
    memory = memory_of(MadeTask())
    assert memory.page(ADDRESS).state is UserPageState.NEVER_TOUCHED
    assert memory.read(ADDRESS, 16) == bytes(16)
    assert memory.page(MADE_AREA).state is UserPageState.MADE_ON_ACCESS
    assert memory.page(0x1000).state is UserPageState.NO_AREA
    with pytest.raises(BadAddress):
        memory.read(MADE_AREA, 1)
    assert memory.page(1 << 60).state is UserPageState.NOT_CANONICAL


def test_a_files_page_is_read_from_the_page_cache() -> None:
    """Where the file's tree has it; else the page is in the file alone."""
    made = MadeTask()
    made.cache(1, 9, b"text of the file")
    memory = memory_of(made)
    page = memory.page(FILE_AREA + PAGE)
    assert (page.state, page.physical) == (UserPageState.IN_PAGE_CACHE, 9 * PAGE)
    assert memory.read(FILE_AREA + PAGE, 4) == b"text"
    assert memory.page(FILE_AREA).state is UserPageState.IN_FILE


def test_arguments_are_words_between_zeros() -> None:
    """Undecodable bytes are escaped; bounds that lie give nothing."""
    made = MadeTask()
    made.map(ADDRESS, 0x5000, b"sh\0-c\0\xffx\0")
    made.arguments(ADDRESS, ADDRESS + 9)
    assert memory_of(made).arguments() == ["sh", "-c", "\\xffx"]
    made.arguments(ADDRESS, 1 << 60)
    assert memory_of(made).arguments() == []
    made.arguments(ADDRESS, ADDRESS - 1)
    assert memory_of(made).arguments() == []


def test_a_kernel_thread_has_none() -> None:
    """Which is said."""
    with pytest.raises(NotFound):
        MadeTask(with_memory=False).user_memory()


def test_the_page_table_is_the_tasks_own() -> None:
    """KernelMemory's own root is not asked."""
    made = MadeTask()
    made.map(ADDRESS, 0x5000, b"x")
    assert isinstance(made.kernel, KernelMemory)
    with pytest.raises(BadAddress):
        made.kernel.read(ADDRESS, 1)


def test_pages_that_continue_each_other_are_one_stretch() -> None:
    """In memory, on swap, and where there is nothing; a budget ends it."""
    made = MadeTask()
    for number in range(3):
        made.map(FREE_AREA + number * PAGE, 0x5000 + number * PAGE, b"x")
    made.map(FREE_AREA + 3 * PAGE, 0x5000, b"x")
    for number in range(4, 8):
        made.enter(FREE_AREA + number * PAGE, swap_entry(0, 10 + number + (number == 7)))
    found = memory_of(made).stretches(FREE_AREA, FREE_AREA + AREA_SIZE, Budget(100))
    assert [(stretch.first.state, stretch.count) for stretch in found] == [
        (UserPageState.PRESENT, 3),
        (UserPageState.PRESENT, 1),
        (UserPageState.SWAPPED, 3),
        (UserPageState.SWAPPED, 1),
        (UserPageState.NEVER_TOUCHED, 8),
    ]
    budget = Budget(5)
    assert sum(stretch.count for stretch in memory_of(made).stretches(FREE_AREA, 1 << 46, budget)) == 5
    assert budget.is_spent


def test_what_has_no_page_table_costs_a_node_a_table() -> None:
    """Terabytes that nobody touched are one stretch, which ends where the range does."""
    made = MadeTask()
    made.map(FREE_AREA, 0x5000, b"x")
    budget, end = Budget(4096), FREE_AREA + (1 << 40)
    found = memory_of(made).stretches(FREE_AREA, end, budget)
    assert sum(stretch.count for stretch in found) == (end - FREE_AREA) // PAGE
    assert found[0].first.state is UserPageState.PRESENT
    assert not budget.is_spent
    for stretch in found[1:]:
        behind = stretch.first.address + stretch.count * PAGE - PAGE
        assert memory_of(made).page(behind).state is stretch.first.state
