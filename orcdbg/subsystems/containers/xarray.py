"""Which entries does an xarray or radix tree hold, and at which indexes?

Mirrors lib/xarray.c and include/linux/xarray.h. Radix trees are xarrays by another name since 4.20 (f8d5d0cc145c).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Tree, WalkOutcome, WalkProblem
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


class _Place(NamedTuple):
    """Where a node or entry hangs: the index of its first slot, how far that may be shifted, and in which slot of what."""

    begin: int
    most_shift: int
    parent: int
    slot: int


def _is_sibling_of(entry: int, place: _Place) -> bool:
    """Whether an internal entry stands for one in a slot before it: xa_is_sibling(), xa_to_sibling()."""
    return bool(place.parent) and entry >> 2 < place.slot


def _count_of_values(words: list[int]) -> int:
    """How many slots of a node hold numbers, as `nr_values` counts: those that stand for another slot are as that one."""
    found = 0
    for word in words:
        is_sibling = word & _NODE_BITS == _INTERNAL and word <= _LARGEST_NO_NODE and word >> 2 < len(words)
        found += is_value(words[word >> 2] if is_sibling else word)
    return found


def is_value(entry: int) -> bool:
    """Whether an entry is a number and no pointer: xa_is_value()."""
    return bool(entry & 1)


def walk(program: Program, head: int, budget: Budget, what: str) -> list[IndexedEntry]:
    """The entries below a head, `xa_head`, by their index; nodes each once, entries that stand for nothing left out.

    Each node leads back to its parent and to the slot there, and counts its entries: where one does not, or the count is
    another, a link was changed, and the budget has a problem. What this cannot tell is an entry that was replaced by
    another, a node by an entry of many indexes, and a head that was replaced by an entry or by nothing.
    """
    walking = _Walk(program, budget, what)
    top: list[int] = []
    walking.take(head, _Place(0, _MOST_SHIFT, 0, 0), top)
    for _ in Tree(top, walking.children_of, budget, what):
        pass
    return sorted(walking.found)


class _Walk:
    """One array being walked."""

    def __init__(self, program: Program, budget: Budget, what: str) -> None:
        self._program = program
        self._layout = program.type("xa_node")
        self._budget = budget
        self._what = what
        self._places: dict[int, _Place] = {}
        self.found: list[IndexedEntry] = []

    def _wrong(self, node: int, why: str) -> None:
        self._budget.note(WalkProblem(self._what, WalkOutcome.CORRUPT, node, why=why))

    def take(self, entry: int, place: _Place, below: list[int]) -> None:
        """Keeps an entry, or adds a node to those below."""
        if not entry or entry == _ZERO_ENTRY:
            return
        if entry & _NODE_BITS != _INTERNAL:
            self.found.append(IndexedEntry(place.begin, entry, place.begin))
        elif entry > _LARGEST_NO_NODE:
            node = entry - _INTERNAL & U64
            if node in self._places:
                self._wrong(node, f"{place.parent:#x} leads to it, and {self._places[node].parent:#x} too")
            self._places.setdefault(node, place)
            below.append(node)
        elif not _is_sibling_of(entry, place):
            self._wrong(place.parent, f"its slot {place.slot} holds {entry:#x}, which stands for no entry")

    def children_of(self, node: int) -> Iterator[int]:
        """The nodes below one; its entries are kept."""
        place = self._places[node]
        inside = self._program.object(self._layout, node)
        shift = int(inside.member_("shift"))
        parent, slot = int(inside.member_("parent")), int(inside.member_("offset"))
        if parent != place.parent or (place.parent and slot != place.slot):
            led = f"slot {place.slot} of {place.parent:#x}" if place.parent else "the array's head"
            self._wrong(node, f"it is slot {slot} of {parent:#x}; what leads to it is {led}")
        # Below a node indexes are shifted less, so that a false tree ends.
        if shift > min(place.most_shift, _MOST_SHIFT):
            why = NotFound("node with a shift of at most", str(place.most_shift))
            self._budget.note_error(self._what, node, why)
            return iter(())

        data = inside.member_("slots").bytes_()
        words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
        held, count = sum(bool(word) for word in words), int(inside.member_("count"))
        if held != count:
            self._wrong(node, f"{count} entries by its count, and it holds {held}")
        numbers, numbers_counted = _count_of_values(words), int(inside.member_("nr_values"))
        if numbers != numbers_counted:
            self._wrong(node, f"{numbers_counted} numbers by its count, and it holds {numbers}")
        below: list[int] = []
        for number, entry in enumerate(words):
            self.take(entry, _Place(place.begin + (number << shift) & U64, shift - 1, node, number), below)
        return iter(below)


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
