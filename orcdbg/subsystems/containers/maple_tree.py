"""Which entries does a maple tree hold, and for which ranges?

Mirrors lib/maple_tree.c (54a611b60590, 6.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Tree, WalkOutcome, WalkProblem
from orcdbg.subsystems.containers.xarray import IndexedEntry
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

_NODE_MASK = 0xFF  # nodes are aligned to 256 bytes; their type is in the low bits of pointers to them
_TYPE_SHIFT, _TYPE_MASK = 3, 0xF
_INTERNAL, _NODE_BITS = 2, 0x3
_LARGEST_NO_NODE = 4096
_ZERO_ENTRY = 257 << 2 | _INTERNAL
_WORD = 8
# In a node's word for its parent: whether that is the tree itself, and the slot there of nodes with 64-bit bounds.
_ROOT_MARK = 1
_PARENT_SLOT_SHIFT, _PARENT_SLOT_MASK = 3, 0xF8


class _Shape(NamedTuple):
    """How a kind of node is laid out, in words: its slots, their upper bounds, and whether slots are entries."""

    slots: int
    slot_count: int
    pivots: int
    pivot_count: int
    is_leaf: bool


def _shapes(program: Program) -> dict[int, _Shape]:
    """By the number of `enum maple_type`."""
    found = {}
    for name, struct, is_leaf in (
        ("maple_leaf_64", "maple_range_64", True),
        ("maple_range_64", "maple_range_64", False),
        ("maple_arange_64", "maple_arange_64", False),
    ):
        enumerator = program.catalog.enumerator(name)
        if enumerator is None:
            continue
        inside = program.object(struct, 0)
        slots, pivots = inside.member_("slot"), inside.member_("pivot")
        found[enumerator[1]] = _Shape(
            (slots.address_ or 0) // _WORD, len(slots), (pivots.address_ or 0) // _WORD, len(pivots), is_leaf
        )
    dense = program.catalog.enumerator("maple_dense")
    if dense is not None:
        slots = program.object("maple_node", 0).member_("slot")
        found[dense[1]] = _Shape((slots.address_ or 0) // _WORD, len(slots), 0, 0, True)
    return found


def walk(program: Program, root: int, budget: Budget, what: str, tree: int | None = None) -> list[IndexedEntry]:
    """The entries below a root, `ma_root`, by their ranges; nodes each once, empty ranges left out.

    Each node leads back to its parent and to the slot there, bounds rise, and no two empty ranges follow each other: where
    that is not so, a link was changed, and the budget has a problem. What this cannot tell is an entry that was replaced by
    another, a bound that keeps its order, and a root that was replaced by an entry or by nothing.
    """
    if root & _NODE_BITS != _INTERNAL or root <= _LARGEST_NO_NODE:
        # A single entry, at index 0.
        return [IndexedEntry(0, root, 0)] if root and root & _NODE_BITS != _INTERNAL else []
    walking = _Walk(program, budget, what, root, tree)
    for _ in Tree([root], walking.children_of, budget, what):
        pass
    return sorted(walking.found)


class _Walk:
    """One tree being walked."""

    def __init__(self, program: Program, budget: Budget, what: str, root: int, tree: int | None) -> None:
        self._memory = program.memory
        self._shapes = _shapes(program)
        self._size = program.type("maple_node").size
        self._budget = budget
        self._what = what
        self._tree = tree
        self._ranges = {root: (0, U64)}
        # What leads to each node: another one without its type, and the slot there.
        self._parents: dict[int, tuple[int, int]] = {}
        self.found: list[IndexedEntry] = []

    def _wrong(self, node: int, why: str) -> None:
        address = node & ~_NODE_MASK & U64
        self._budget.note(WalkProblem(self._what, WalkOutcome.CORRUPT, address, why=why))

    def children_of(self, node: int) -> Iterator[int]:
        """The nodes below one; its entries are kept."""
        first, most = self._ranges[node]
        kind = node >> _TYPE_SHIFT & _TYPE_MASK
        shape = self._shapes.get(kind)
        if shape is None:
            self._wrong(node, f"a node of the unknown kind {kind}")
            return iter(())
        if not shape.pivot_count and most - first >= shape.slot_count:
            self._wrong(node, f"a node of {shape.slot_count} indexes, for {first:#x} to {most:#x}")
        data = self._memory.read(node & ~_NODE_MASK, self._size)
        words = [int.from_bytes(data[at : at + _WORD], "little") for at in range(0, self._size, _WORD)]
        self._check_parent(node, words[0])

        below: list[int] = []
        low, was_empty = first, False
        for slot in range(shape.slot_count):
            high = self._bound(node, shape, words, slot, (low, most))
            entry = words[shape.slots + slot]
            if not entry and high < most and (was_empty or not shape.is_leaf):
                self._wrong(node, f"its slot {slot}, for {low:#x} to {high:#x}, is empty")
            self._take(node, slot, entry, (low, high), below, is_leaf=shape.is_leaf)
            if high >= most:
                self._check_rest(node, shape, words, slot)
                break
            low, was_empty = high + 1, not entry
        return iter(below)

    def _bound(self, node: int, shape: _Shape, words: list[int], slot: int, within: tuple[int, int]) -> int:
        """The last index of a slot."""
        low, most = within
        if not shape.pivot_count:
            return low
        if slot >= shape.pivot_count:
            return most
        pivot = words[shape.pivots + slot]
        # A pivot of 0 behind the first is one that is not used: the slot reaches to the node's end.
        if slot and not pivot:
            return most
        if not low <= pivot <= most:
            self._wrong(node, f"its slot {slot} ends at {pivot:#x}, out of {low:#x} to {most:#x}")
        return min(pivot, most)

    def _take(
        self, node: int, slot: int, entry: int, indexes: tuple[int, int], below: list[int], *, is_leaf: bool
    ) -> None:
        """Keeps an entry, or adds a node to those below."""
        if not entry or (is_leaf and entry == _ZERO_ENTRY):
            return
        if is_leaf:
            if entry & _NODE_BITS == _INTERNAL:
                self._wrong(node, f"its slot {slot} holds {entry:#x}, which stands for no entry")
            self.found.append(IndexedEntry(indexes[0], entry, indexes[1]))
            return
        if entry in self._parents:
            self._wrong(entry, f"{node & ~_NODE_MASK:#x} leads to it, and {self._parents[entry][0]:#x} too")
        self._ranges.setdefault(entry, indexes)
        self._parents.setdefault(entry, (node & ~_NODE_MASK & U64, slot))
        below.append(entry)

    def _check_rest(self, node: int, shape: _Shape, words: list[int], last: int) -> None:
        """Behind the slot that reaches to a node's end nothing is left: mas_validate_limits(). The last slot may be numbers."""
        slots = words[shape.slots + last + 1 : shape.slots + shape.slot_count - 1]
        pivots = words[shape.pivots + last + 1 : shape.pivots + shape.pivot_count]
        if any(slots) or any(pivots):
            self._wrong(node, f"its slot {last} reaches to the node's end, and is not the last one")

    def _check_parent(self, node: int, word: int) -> None:
        """Compares a node's first word with what led to it; the root's leads to the tree, with a mark."""
        place = self._parents.get(node)
        if place is None:
            if not word & _ROOT_MARK:
                self._wrong(node, f"its parent is {word & ~_NODE_MASK & U64:#x}, and it is the root")
            elif self._tree is not None and word & ~_ROOT_MARK != self._tree:
                self._wrong(node, f"it is the root of the tree at {word & ~_ROOT_MARK:#x}, not of {self._tree:#x}")
            return
        parent, slot = word & ~_NODE_MASK & U64, (word & _PARENT_SLOT_MASK) >> _PARENT_SLOT_SHIFT
        if word & _ROOT_MARK or (parent, slot) != place:
            led = f"slot {place[1]} of {place[0]:#x}"
            self._wrong(node, f"it is slot {slot} of {parent:#x}; what leads to it is {led}")


def entries(tree: Object, budget: Budget) -> list[IndexedEntry]:
    """The entries of a `struct maple_tree`; an empty list where its root cannot be read, for which the budget has a problem."""
    root = tree.member_("ma_root")
    what = f"the tree at {root.address_ or 0:#x}"
    try:
        return walk(tree.program_, int(root), budget, what, tree.address_)
    except MemoryFault as error:
        budget.note_error(what, root.address_ or 0, error)
        return []
