"""Searching memory: what numpy finds is what a reader finds who looks at each place; page tables give runs in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import MemoryFault, NotInSnapshot, UsageError
from orcdbg.base.walks import Budget
from orcdbg.snapshot.memory_search import Hit, TextPattern, WordPattern, joined, search
from orcdbg.snapshot.pagetables import KernelMemory, MappedRun
from tests.build.memory import PageTableBuilder, SparseMemory


class Holes:
    """Memory of which some pages are missing."""

    def __init__(self, data: bytes, missing: set[int]) -> None:
        self._data, self._missing = data, missing

    def read(self, address: int, size: int) -> bytes:
        """Bytes, where no page of them is missing."""
        for page in range(address // 4096, (address + size - 1) // 4096 + 1):
            if page in self._missing:
                raise NotInSnapshot("physical", page * 4096, size)
        return self._data[address : address + size]


@given(
    st.lists(st.integers(0, 3), min_size=64, max_size=64),
    st.sampled_from([2, 4, 8]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from([0, 1, 0xFF]),
)
def test_words_are_found_where_they_are(words: list[int], width: int, values: list[int], ignored: int) -> None:
    """At each aligned place whose word matches one of the values in the bits that count, and nowhere else."""
    data = b"".join(word.to_bytes(width, "little") for word in words)
    found = list(search(Holes(data, set()), [MappedRun(0x1000, 0, len(data))], WordPattern(width, values, ignored)))
    expected = [
        Hit(0x1000 + width * place, word)
        for place, word in enumerate(words)
        if any((word ^ value) & ~ignored == 0 for value in values)
    ]
    assert found == expected


def test_a_text_is_found_across_pieces_once() -> None:
    """Where a piece of 4 MiB ends inside of it, and not a second time in the next piece."""
    border = 4 << 20
    data = bytearray(border + 4096)
    data[border - 3 : border + 4] = b"needle!"
    assert list(search(Holes(bytes(data), set()), [MappedRun(0, 0, len(data))], TextPattern([b"needle"]))) == [
        Hit(border - 3, b"needle")
    ]


def test_pages_that_are_missing_cost_themselves_alone() -> None:
    """What is before and behind them is searched."""
    data = bytearray(4 * 4096)
    for place in (8, 4096 + 8, 3 * 4096 + 16):
        data[place : place + 8] = (0xABCD).to_bytes(8, "little")
    memory = Holes(bytes(data), {1, 2})
    found = list(search(memory, [MappedRun(0, 0, len(data))], WordPattern(8, [0xABCD])))
    assert [hit.address for hit in found] == [8, 3 * 4096 + 16]


def test_runs_that_follow_each_other_are_one() -> None:
    """Only where they do at both addresses."""
    runs = [MappedRun(0, 100, 10), MappedRun(10, 110, 5), MappedRun(15, 200, 5), MappedRun(30, 205, 1)]
    assert list(joined(runs)) == [MappedRun(0, 100, 15), MappedRun(15, 200, 5), MappedRun(30, 205, 1)]


@pytest.mark.parametrize("text", [b"", b"x" * 5000])
def test_a_text_of_no_sane_length_is_refused(text: bytes) -> None:
    """An empty one is everywhere."""
    with pytest.raises(UsageError):
        TextPattern([text])


_ADDRESSES = st.integers(0, (1 << 47) - 1).map(lambda address: address & ~0xFFF)
_KERNEL = _ADDRESSES.map(lambda address: address | 0xFFFF_8000_0000_0000)


@given(
    st.dictionaries(st.one_of(_ADDRESSES, _KERNEL), st.integers(1, 1 << 20), max_size=12),
    st.booleans(),
    st.sampled_from([4, 5]),
)
@settings(max_examples=60)
def test_page_tables_give_what_translate_gives(mapped: dict[int, int], upper: bool, levels: int) -> None:
    """Each page that is mapped in the half asked for, by address, and no other."""
    tables = PageTableBuilder(levels, first=1 << 40)
    for address, frame in mapped.items():
        tables.map(address, frame * 4096)
    physical = SparseMemory("physical")
    tables.write(physical)
    memory = KernelMemory(physical, tables.root, levels)
    start, end = (0xFFFF_8000_0000_0000, (1 << 64) - 1) if upper else (0, 1 << 47)
    runs = list(memory.runs(start, end, Budget(1 << 10)))
    assert [run.address for run in runs] == sorted(address for address in mapped if start <= address < end)
    assert all(memory.translate(run.address) == run.physical for run in runs)


def test_page_tables_that_lead_to_themselves_end() -> None:
    """The budget is spent, and says so."""
    physical = SparseMemory("physical")
    physical.put_words(0x1000, *([0x1003] * 512))
    budget = Budget(1000)
    count = sum(1 for _ in KernelMemory(physical, 0x1000, 4).runs(0, 1 << 47, budget))
    assert count <= 1000 * 512
    assert budget.is_spent
    with pytest.raises(MemoryFault):
        physical.read(0x9000, 1)
