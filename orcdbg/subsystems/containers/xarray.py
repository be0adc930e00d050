"""Which entries does an xarray or radix tree hold, and at which indexes?

Mirrors lib/xarray.c and include/linux/xarray.h. Radix trees are xarrays by another name since 4.20 (f8d5d0cc145c).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Tree
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

_INTERNAL = 2
_NODE_BITS = 0x3
# Internal entries up to here are siblings, retries and zeros, not nodes: XA_ZERO_ENTRY and its neighbours, and errors.
_LARGEST_NO_NODE = 4096
_ZERO_ENTRY = 257 << 2 | _INTERNAL
_MOST_SHIFT = 60


@dataclass(frozen=True, slots=True, order=True)
class IndexedEntry:
    """An entry of an xarray or maple tree: the word at indexes `index` to `last`."""

    index: int
    value: int
    last: int


def is_value(entry: int) -> bool:
    """Whether an entry is a number and no pointer: xa_is_value()."""
    return bool(entry & 1)


def walk(program: Program, head: int, budget: Budget, what: str) -> list[IndexedEntry]:
    """The entries below a head, `xa_head`, by their index; nodes each once, entries that stand for nothing left out."""
    layout = program.type("xa_node")
    found: list[IndexedEntry] = []
    # By node: the index of its first slot, and how far its slots' indexes may be shifted.
    places: dict[int, tuple[int, int]] = {}

    def note(entry: int, index: int, shift: int, below: list[int]) -> None:
        if not entry or entry == _ZERO_ENTRY:
            return
        if entry & _NODE_BITS != _INTERNAL:
            found.append(IndexedEntry(index, entry, index))
        elif entry > _LARGEST_NO_NODE:
            node = entry - _INTERNAL & U64
            places.setdefault(node, (index, shift))
            below.append(node)

    def children_of(node: int) -> Iterator[int]:
        base, limit = places[node]
        inside = program.object(layout, node)
        shift = int(inside.member_("shift"))
        # Below a node indexes are shifted less, so that a false tree ends.
        if shift > min(limit, _MOST_SHIFT):
            budget.note_error(what, node, NotFound("node with a shift of at most", str(limit)))
            return iter(())
        slots = inside.member_("slots")
        data = slots.bytes_()
        below: list[int] = []
        for place in range(0, len(data), 8):
            entry = int.from_bytes(data[place : place + 8], "little")
            note(entry, base + (place // 8 << shift) & U64, shift - 1, below)
        return iter(below)

    top: list[int] = []
    note(head, 0, _MOST_SHIFT, top)
    for _ in Tree(top, children_of, budget, what):
        pass
    return sorted(found)


def entries(array: Object, budget: Budget) -> list[IndexedEntry]:
    """The entries of a `struct xarray`, `radix_tree_root` or `idr`; what is broken of it is the budget's.

    An empty list where its head cannot be read.
    """
    head = array.first_of_("xa_head", "idr_rt.xa_head")
    if head is None:
        raise NotFound("member", "xa_head")
    what = f"the tree at {head.address_ or 0:#x}"
    try:
        return walk(array.program_, int(head), budget, what)
    except MemoryFault as error:
        budget.note_error(what, head.address_ or 0, error)
        return []
