"""Trees in memory: what is in them by their order, and bounded walks over such as contradict themselves."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import rbtree, xarray
from orcdbg.subsystems.containers.xarray import IndexedEntry
from orcdbg.target.session import Session
from orcdbg.typed.program import Program
from tests.build.memory import SparseMemory

BASE = 0xFFFF_8880_0100_0000
NODE_SIZE = 0x1000


def binary(memory: SparseMemory, keys: list[int], parent: int = 0, levels: int | None = None) -> int:
    """A balanced tree whose nodes are at BASE + 64 * key; the address of the topmost one. Nodes of the lowest level are red."""
    if not keys:
        return 0
    levels = len(keys).bit_length() if levels is None else levels
    middle = len(keys) // 2
    node = BASE + 64 * keys[middle]
    left = binary(memory, keys[:middle], node, levels - 1)
    right = binary(memory, keys[middle + 1 :], node, levels - 1)
    memory.put_words(node, parent | (levels > 1), right, left)
    return node


@pytest.fixture
def memory() -> SparseMemory:
    """Memory with nothing in it."""
    return SparseMemory()


@pytest.fixture
def program(sample: Session, memory: SparseMemory) -> Program:
    """The sample's types over that memory."""
    return sample.program.over(memory)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_a_red_black_tree_is_walked_in_its_order(program: Program, memory: SparseMemory, count: int) -> None:
    """Left before right, at any size, with the way to each node."""
    budget = Budget(1000)
    top = binary(memory, list(range(count)))
    found = rbtree.walk(program, top, budget, "a tree")
    assert [node.address for node in found] == [BASE + 64 * key for key in range(count)]
    assert budget.is_whole
    assert all(len(node.position.split("/")) == node.depth + 1 for node in found)


def test_nodes_of_a_tree_that_leads_back_are_met_once(program: Program, memory: SparseMemory) -> None:
    """A child that is its own ancestor, and one that two nodes share."""
    top = binary(memory, list(range(7)))
    leaf, other = BASE, BASE + 64 * 6
    memory.put_words(leaf, 1, top, leaf)
    memory.put_words(other, 1, leaf, 0)
    found = rbtree.walk(program, top, Budget(1000), "a tree")
    assert sorted(node.address for node in found) == [BASE + 64 * key for key in range(7)]


def test_what_cannot_be_read_of_a_tree_costs_what_is_below_it(program: Program, memory: SparseMemory) -> None:
    """The rest is there, and the problem names the node."""
    top = binary(memory, list(range(7)))
    del memory.pieces[BASE + 64]
    budget = Budget(1000)
    found = rbtree.walk(program, top, budget, "a tree")
    assert [node.address for node in found] == [BASE + 64 * key for key in (1, 3, 4, 5, 6)]
    assert f"{BASE + 64:#x}" in budget.lines()[0]


def test_a_tree_of_any_number_of_false_nodes_ends_at_the_budget(program: Program, memory: SparseMemory) -> None:
    """However many there are."""
    binary(memory, list(range(500)))
    budget = Budget(50)
    found = rbtree.walk(program, BASE + 64 * 250, budget, "a tree")
    assert len(found) <= 50
    assert not budget.is_whole


class ArrayBuilder:
    """Writes an xarray into memory."""

    def __init__(self, program: Program, memory: SparseMemory) -> None:
        inside = program.object("xa_node", 0)
        self._shift = inside.member_("shift").address_ or 0
        self._slots = inside.member_("slots").address_ or 0
        # 6 bits of an index a level; 4 in kernels that are built small, as the sample's is.
        self.bits = (len(inside.member_("slots")) - 1).bit_length()
        self._size = inside.size_
        self._counted = inside.member_("count").address_ or 0
        self._offset = inside.member_("offset").address_ or 0
        self._parent = inside.member_("parent").address_ or 0
        self._memory = memory
        self._next = itertools.count(BASE, NODE_SIZE)

    def node(self, shift: int, slots: dict[int, int]) -> int:
        """A node's entry in its parent."""
        address = next(self._next)
        data = bytearray(self._size)
        data[self._shift] = shift
        for slot, entry in slots.items():
            at = self._slots + 8 * slot
            data[at : at + 8] = entry.to_bytes(8, "little")
            child = self._memory.pieces.get(entry - 2) if entry & 3 == 2 else None
            if child is not None:
                child[self._offset] = slot
                child[self._parent : self._parent + 8] = address.to_bytes(8, "little")
        data[self._counted] = len(slots)
        self._memory.put(address, bytes(data))
        return address | 2

    def tree(self, entries: dict[int, int], shift: int) -> int:
        """The head of an array with these entries, whose topmost node shifts indexes by `shift`."""
        slots: dict[int, dict[int, int]] = {}
        for index, entry in entries.items():
            slots.setdefault(index >> shift & (1 << self.bits) - 1, {})[index] = entry
        if not shift:
            return self.node(0, {slot: next(iter(inside.values())) for slot, inside in slots.items()})
        return self.node(shift, {slot: self.tree(inside, shift - self.bits) for slot, inside in slots.items()})


@given(
    st.dictionaries(
        st.integers(0, (1 << 20) - 1), st.integers(1, 1 << 40).map(lambda n: n * 4), min_size=1, max_size=40
    )
)
def test_an_xarray_gives_back_what_was_put_into_it(sample: Session, entries: dict[int, int]) -> None:
    """Each entry at its index, in their order."""
    memory = SparseMemory()
    program = sample.program.over(memory)
    builder = ArrayBuilder(program, memory)
    head = builder.tree(entries, 4 * builder.bits)
    budget = Budget(10_000)
    found = xarray.walk(program, head, budget, "an array")
    assert found == [IndexedEntry(index, entry, index) for index, entry in sorted(entries.items())]
    assert budget.is_whole


def test_an_xarray_may_be_one_entry_or_none(program: Program) -> None:
    """Its head is the entry at index 0; a number is told by its lowest bit."""
    assert xarray.walk(program, 0, Budget(10), "an array") == []
    assert xarray.walk(program, 0x1000, Budget(10), "an array") == [IndexedEntry(0, 0x1000, 0)]
    assert xarray.is_value(7 << 1 | 1)


def test_an_xarray_whose_nodes_are_too_high_or_lead_back_ends(program: Program, memory: SparseMemory) -> None:
    """A node that shifts as far as the one above it is a lie, and one that was met is not met again."""
    builder = ArrayBuilder(program, memory)
    leaf = builder.node(0, {1: 0x4000})
    wrong = builder.node(builder.bits, {0: leaf})
    top = builder.node(builder.bits, {0: wrong, 1: leaf, 2: leaf})
    budget = Budget(1000)
    index = (1 << builder.bits) + 1
    assert xarray.walk(program, top, budget, "an array") == [IndexedEntry(index, 0x4000, index)]
    assert any("shift" in line for line in budget.lines())
    assert any("leads to it, and" in line for line in budget.lines())

    itself = builder.node(builder.bits, {})
    memory.pieces[itself & ~2][builder._slots : builder._slots + 8] = itself.to_bytes(8, "little")
    assert xarray.walk(program, itself, Budget(1000), "an array") == []


@given(st.integers(0, U64), st.binary(min_size=64, max_size=2048))
def test_any_bytes_are_a_tree_of_some_kind_and_none_hangs(sample: Session, head: int, data: bytes) -> None:
    """Trees over memory that holds anything end within their budget."""
    memory = SparseMemory()
    memory.put(BASE, data.ljust(4096, b"\x5a"))
    program = sample.program.over(memory)
    for start in (head, BASE, BASE | 2):
        assert len(rbtree.walk(program, start, Budget(200), "a tree")) <= 200
        assert len(xarray.walk(program, start, Budget(200), "an array")) <= 64 * 200
