"""What is on a linked list of the kernel, and where does a broken one break?

Mirrors include/linux/list.h, include/linux/llist.h. All forms begin with the address of the next node: `list_head` comes
back to its head, `hlist_node`, `llist_node` and a plain pointer end with NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, UsageError
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Chain, WalkOutcome, rest_of_list, unmet_from_the_end
from orcdbg.kernel.linux import LinksBack, WayBack, list_nodes
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import CompoundType, Type, resolved

# A heap of a million nodes is shown in some seconds; more than that nobody reads.
MAX_NODES = 1 << 20


@dataclass(frozen=True, slots=True)
class ListWalk:
    """The nodes of a list, from both of its ends where it is broken.

    Attributes:
        nodes: addresses of the links, from the beginning.
        from_end: those that only the way back from the list's end leads to, in the list's order.
        end: how the walk from the beginning ended.
        broken_at: the link that leads astray: the last good node, or the head; None where the list is whole.
        leads_to: where that link leads.
    """

    nodes: list[int]
    from_end: list[int]
    end: WalkOutcome
    broken_at: int | None = None
    leads_to: int | None = None


def offset_of(program: Program, type_: Type | str, path: str) -> int:
    """Bytes from a structure's start to a member.

    Raises:
        NotFound: there is no such type or member.
        UsageError: it is no structure.
    """
    target = program.type(type_) if isinstance(type_, str) else type_
    plain = program.completed(resolved(target))
    if not isinstance(plain, CompoundType):
        raise UsageError(f"{target.name or 'it'} is no structure, so it has no {path}")
    return plain.member(path).bit_offset // 8


def _address_of(value: Object) -> int:
    """Where an object is; where a pointer points to."""
    address = value.address_
    return int(value) if address is None else address


def entries(head: Object, type_: str, path: str, budget: Budget) -> Iterator[Object]:
    """The structures on a `list_head` list; a broken one is walked from its other end too.

    Args:
        head: the list's head, or a pointer to it.
        type_: what is on the list.
        path: of its `list_head` member.
        budget: what the walk draws on, and where problems go.
    """
    program = head.program_
    offset = offset_of(program, type_, path)
    what = f"the list of {type_}.{path} at {_address_of(head):#x}"
    target = program.type(type_)
    for node in list_nodes(program.memory, _address_of(head), budget, what):
        yield program.object(target, node - offset)


def chained(
    first: int,
    program: Program,
    type_: str,
    path: str,
    budget: Budget,
    seen: set[int] | None = None,
    head: int | None = None,
) -> Iterator[Object]:
    """The structures of a list that ends with NULL: `hlist_node`, `llist_node`, or a pointer to the next structure.

    Args:
        first: what the head points to: a link; for a plain pointer a structure.
        program: the kernel.
        type_: what is on the list.
        path: of the link. Where that is a pointer to the structure itself, it is a plain next pointer.
        budget: what the walk draws on.
        seen: nodes met so far, shared by chains that must not meet.
        head: address of the pointer to the first node, for an `hlist_head`, whose first node leads back to it.
    """
    target = program.type(type_)
    offset = offset_of(program, target, path)
    what = f"the list of {type_}.{path} at {first:#x}"
    # A structure's own pointer leads to the next structure's start, a node in it to the next node.
    member = program.object(target, 0).member_(path)
    is_node = isinstance(program.completed(resolved(member.type_)), CompoundType)
    link = 0 if is_node else offset

    def plain_next(node: int) -> int:
        return read_u64(program.memory, node + link & U64)

    has_way_back = is_node and member.has_member_("pprev")
    next_of = LinksBack(program.memory, head, budget, what).next_of if has_way_back else plain_next

    for node in Chain(first, next_of, budget, what, seen=seen):
        yield program.object(target, node - offset if is_node else node)


def walk(
    program: Program,
    first: int,
    next_offset: int,
    budget: Budget,
    head: int | None = None,
    previous_of: Callable[[int], int] | None = None,
    *,
    is_hash_chain: bool = False,
) -> ListWalk:
    """A list as a reader asks for it: all nodes, and where it breaks.

    Args:
        program: the kernel.
        first: the first node.
        next_offset: bytes from a node's start to its link.
        budget: what the walk draws on.
        head: what ends the list besides NULL; None for a list without a head, which ends where it comes back to its first node.
        previous_of: reads the node before one, for lists that are linked in both directions.
        is_hash_chain: whether it is an hlist, whose nodes lead back to the pointer that leads to them.
    """
    what = f"the list at {first if head is None else head:#x}"
    links = LinksBack(program.memory, head, budget, what, next_offset)

    def plain_next(node: int) -> int:
        return read_u64(program.memory, node + next_offset & U64)

    has_way_back = head is not None and (previous_of is not None or is_hash_chain)
    next_of = links.next_of if has_way_back else plain_next

    ends = {0} if head is None else {0, head}
    link = next_of if head is not None else _closed_at(first, next_of)
    chain = Chain(first, link, budget, what, ends)
    nodes = list(chain)
    end = chain.end or WalkOutcome.ENDED

    # A list_head list never ends with NULL: that is a link that was overwritten.
    is_ring = head is not None and previous_of is not None
    if is_ring and end is WalkOutcome.ENDED:
        is_broken = bool(nodes) and plain_next(nodes[-1]) != head
    else:
        is_broken = end in (WalkOutcome.CIRCLE, WalkOutcome.UNREADABLE)

    if is_broken:
        return _broken(nodes, end, first, plain_next, head, previous_of, budget)
    if head is not None and previous_of is not None and end is WalkOutcome.ENDED:
        links.end_at(head)
        if links.is_broken:
            return ListWalk(nodes, _behind(unmet_from_the_end, head, previous_of, nodes, budget), end)
    return ListWalk(nodes, [], end)


def _broken(
    nodes: list[int],
    end: WalkOutcome,
    first: int,
    next_of: Callable[[int], int],
    head: int | None,
    previous_of: Callable[[int], int] | None,
    budget: Budget,
) -> ListWalk:
    """A walk that broke off, with what the other direction reaches, where there is one."""
    # The last node is where an unreadable link led; its own link cannot be read, so the one before is wrong.
    if end is WalkOutcome.UNREADABLE and nodes:
        leads_to: int | None = nodes.pop()
    else:
        leads_to = _or_none(next_of, nodes[-1]) if nodes else first
    last_good = nodes[-1] if nodes else head
    from_end: list[int] = []
    if head is not None and previous_of is not None:
        from_end = _behind(rest_of_list, head, previous_of, nodes, budget)
    return ListWalk(nodes, from_end, end, last_good, leads_to)


def _behind(
    way_back: WayBack, head: int, previous_of: Callable[[int], int], nodes: list[int], budget: Budget
) -> list[int]:
    """What a way back from the end reaches; nothing where the head cannot be read."""
    last = _or_none(previous_of, head)
    return [] if last is None else way_back(last, previous_of, head, set(nodes), budget)


def _closed_at(first: int, next_of: Callable[[int], int]) -> Callable[[int], int]:
    """Ends a ring without a head where it comes back to its first node."""

    def next_in_ring(node: int) -> int:
        found = next_of(node)
        return 0 if found == first else found

    return next_in_ring


def _or_none(read: Callable[[int], int], node: int) -> int | None:
    try:
        return read(node)
    except MemoryFault:
        return None
