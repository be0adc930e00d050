"""Which entries does a maple tree hold, and for which ranges?

Mirrors lib/maple_tree.c (54a611b60590, 6.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Tree
from orcdbg.subsystems.containers.xarray import IndexedEntry
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

_NODE_MASK = 0xFF  # nodes are aligned to 256 bytes; their type is in the low bits of pointers to them
_TYPE_SHIFT, _TYPE_MASK = 3, 0xF
_INTERNAL, _NODE_BITS = 2, 0x3
_LARGEST_NO_NODE = 4096
_ZERO_ENTRY = 257 << 2 | _INTERNAL
_WORD = 8


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


def walk(program: Program, root: int, budget: Budget, what: str) -> list[IndexedEntry]:
    """The entries below a root, `ma_root`, by their ranges; nodes each once, empty ranges left out."""
    shapes = _shapes(program)
    size = program.type("maple_node").size
    found: list[IndexedEntry] = []
    ranges: dict[int, tuple[int, int]] = {}

    def children_of(node: int) -> Iterator[int]:
        first, most = ranges[node]
        shape = shapes.get(node >> _TYPE_SHIFT & _TYPE_MASK)
        if shape is None:
            return iter(())
        data = program.memory.read(node & ~_NODE_MASK, size)
        words = [int.from_bytes(data[at : at + _WORD], "little") for at in range(0, size, _WORD)]
        below: list[int] = []
        low = first
        for slot in range(shape.slot_count):
            high = most
            if not shape.pivot_count:
                high = low
            elif slot < shape.pivot_count:
                pivot = words[shape.pivots + slot]
                # A pivot of 0 behind the first is one that is not used: the slot reaches to the node's end.
                high = min(pivot, most) if pivot or not slot else most
            entry = words[shape.slots + slot]
            if shape.is_leaf:
                if entry and entry != _ZERO_ENTRY:
                    found.append(IndexedEntry(low, entry, high))
            elif entry:
                ranges.setdefault(entry, (low, high))
                below.append(entry)
            if high >= most:
                break
            low = high + 1
        return iter(below)

    if root & _NODE_BITS != _INTERNAL or root <= _LARGEST_NO_NODE:
        # A single entry, at index 0.
        return [IndexedEntry(0, root, 0)] if root and root & _NODE_BITS != _INTERNAL else []
    ranges[root] = 0, U64
    for _ in Tree([root], children_of, budget, what):
        pass
    return sorted(found)


def entries(tree: Object, budget: Budget) -> list[IndexedEntry]:
    """The entries of a `struct maple_tree`; an empty list where its root cannot be read, for which the budget has a problem."""
    root = tree.member_("ma_root")
    what = f"the tree at {root.address_ or 0:#x}"
    try:
        return walk(tree.program_, int(root), budget, what)
    except MemoryFault as error:
        budget.note_error(what, root.address_ or 0, error)
        return []
