"""list: the structures on a linked list, and where it breaks; or lines of the source."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, NotFound, UsageError
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, WalkOutcome
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.members import (
    MemberValue,
    add_member_arguments,
    offset_in,
    place,
    pointer_names,
    values_at,
    wanted_members,
)
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.subsystems.containers.lists import MAX_NODES, ListWalk, walk
from orcdbg.typed.objects import Object

_PREVIOUS = 8  # offset of prev behind next, in a struct list_head


@dataclass(frozen=True, slots=True)
class ListNode:
    """A structure on a list: `is_from_end` where only the way back from the list's end leads to it."""

    address: int
    values: tuple[MemberValue, ...]
    is_from_end: bool = False


@dataclass(frozen=True, slots=True)
class ListBreak:
    """Where a list breaks: the link at `link` leads to `leads_to`, which is no further node of the list.

    Attributes:
        structure: that the link is in; None where the link is the list's head.
        outcome: what was found there.
        from_start: how many nodes were reached from the beginning.
        from_end: how many more from the end; None where the list is linked in one direction alone.
    """

    link: int
    structure: int | None
    leads_to: int | None
    outcome: WalkOutcome
    from_start: int
    from_end: int | None


@dataclass(frozen=True, slots=True)
class ListNodes(Result):
    """A list: `broken` is None where it is whole, `is_cut` is true where it has more nodes than were asked for."""

    nodes: Sequence[ListNode]
    broken: ListBreak | None
    is_cut: bool
    symbols: Mapping[int, str]
    in_hexadecimal: bool
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="START",
        help="where the list begins: ADDR, SYMBOL, VARIABLE.MEMBER or an expression; an offset may stand before it, as for -o. "
        "A function, FILE:LINE or *ADDR is a place in the source",
    )
    parser.add_argument(
        "-o",
        "--offset",
        metavar="OFFSET",
        help="where in a structure the link is, a number or STRUCT.MEMBER (default: at its start)",
    )
    parser.add_argument(
        "-H",
        "--list-head",
        nargs="?",
        const="",
        metavar="START",
        help="the list begins at a list_head or hlist_head that is in no node",
    )
    parser.add_argument(
        "-h",
        "--in-structure",
        nargs="?",
        const="",
        metavar="START",
        help="the list begins at a structure whose list_head is one of the list's",
    )
    parser.add_argument(
        "-O",
        "--head-offset",
        metavar="OFFSET",
        help="with -h, where in that structure the head is; it is no node then",
    )
    add_member_arguments(parser, "node")
    parser.add_argument("-r", "--reverse", action="store_true", help="walk a list of list_heads backwards, by prev")
    parser.add_argument("-e", "--end", metavar="ADDR", help="end at this node, besides at NULL and at the beginning")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="show the first N nodes; of source N lines (default: 10)"
    )


def _offset_and_start(arguments: argparse.Namespace) -> tuple[str | None, str]:
    """The words for the offset, None where there is none, and for the beginning, which `-h` and `-H` may have taken."""
    taken = [word for word in (arguments.list_head, arguments.in_structure) if word]
    given = [*([arguments.offset] if arguments.offset is not None else []), *arguments.words, *taken]
    if not 1 <= len(given) <= 2 or (len(given) == 1 and arguments.offset is not None):
        raise UsageError(
            "list takes one beginning, and one offset at most", "for example: list task_struct.tasks -h init_task"
        )
    return (given[0], given[1]) if len(given) == 2 else (None, given[0])


def _function_at(debugger: Debugger, word: str) -> int | None:
    """The address of the function that a word names, None where it names none."""
    if re.fullmatch(r"(0x)?[0-9a-fA-F]+", word):
        address = debugger.session.linux.find_address(word)
    else:
        try:
            address = debugger.address(word)
        except NotFound:
            return None
    # Not by the symbol's letter: 7.2's image calls some variables text.
    return address if address is not None and debugger.session.is_text(address) else None


_FILE_AND_LINE = re.compile(r"(.+):([0-9]{1,9})")


def _source(debugger: Debugger, arguments: argparse.Namespace) -> Result | None:
    """The source lines that the words ask for; None where they ask for a list, which begins at data."""
    if len(arguments.words) != 1:
        return None
    (word,) = arguments.words
    place = _FILE_AND_LINE.fullmatch(word)
    if word.startswith("*"):
        address: int | None = debugger.address(word[1:])
    else:
        address = None if place is not None else _function_at(debugger, word)
    if address is None and place is None:
        return None

    if any((arguments.offset, arguments.list_head is not None, arguments.in_structure is not None, arguments.struct)):
        raise UsageError(f"{word} is a place in the source, not a list")
    from orcdbg.commands import source_text  # a list needs none of it

    count = source_text.LINES if arguments.limit is None else arguments.limit
    if not 0 < count <= source_text.MAX_LINES:
        raise UsageError(f"not a number of lines: {count}", f"--limit is a number from 1 to {source_text.MAX_LINES}")
    if address is not None:
        return source_text.around_address(debugger, address, count)
    assert place is not None
    return source_text.around_line(debugger, place[1], int(place[2]), count)


@dataclass(frozen=True, slots=True)
class _Start:
    """How a list is walked.

    `first` is the first node and `head` what ends the walk, None for a plain chain; `offset` from a node back to its
    structure; `with_head` where the head is a node as well; `is_hash_chain` where it is an hlist.
    """

    first: int
    head: int | None
    offset: int
    next_offset: int
    previous_of: Callable[[int], int] | None
    with_head: bool = False
    is_hash_chain: bool = False


@command(
    "list",
    summary="show the structures on a linked list, and where it breaks; or source lines",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(
        ("list -H modules -o module.list -s module.name", "what is on a list with a head of its own"),
        (
            "list task_struct.tasks -h init_task -s task_struct.pid,comm",
            "a list that goes through the structures themselves",
        ),
        ("list irqaction.next ffff888005051f40", "structures that point to the next one"),
        ("list -H &init_task.children -o task_struct.sibling", "where an expression leads to"),
        ("list schedule", "the source lines around a function's beginning; they need --source DIR"),
        ("list kernel/sched/core.c:6000", "those around a line; `list *ADDR` around an address's"),
    ),
    has_own_h=True,
    has_expressions=True,
)
def list_(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the nodes of a list and the place where it breaks; or with lines of the source."""
    source = _source(debugger, arguments)
    if source is not None:
        return source

    offset, start = _offset_and_start(arguments)
    if _function_at(debugger, start) is not None:
        raise UsageError(f"{start} is a function, not a list", f"its source lines: list {start}")
    if arguments.limit is not None and arguments.limit <= 0:
        raise UsageError(f"not a number of nodes: {arguments.limit}", "for example: --limit 100")
    program = debugger.session.program
    wanted = wanted_members(program, [*arguments.struct, *arguments.hexadecimal_struct])
    how = _start_of(debugger, arguments, offset, place(debugger, start))
    budget = Budget(MAX_NODES)
    found = _walked(debugger, how, arguments, budget)

    shown: list[tuple[int, bool]] = [(node, False) for node in found.nodes] + [(node, True) for node in found.from_end]
    if how.with_head and how.head is not None:
        shown.insert(0, (how.head, False))
    is_cut = arguments.limit is not None and len(shown) > arguments.limit
    shown = shown[: arguments.limit]
    addresses = [node - how.offset & U64 for node, _ in shown]
    values = values_at(program, wanted, addresses, budget)
    nodes = [
        ListNode(address, of_node, is_from_end)
        for address, of_node, (_, is_from_end) in zip(addresses, values, shown, strict=True)
    ]
    symbols = pointer_names(debugger, [value for node in nodes for value in node.values])
    in_hexadecimal = arguments.hexadecimal or debugger.in_hexadecimal or bool(arguments.hexadecimal_struct)
    return ListNodes(nodes, _break(found, how), is_cut, symbols, in_hexadecimal, budget.lines())


def _start_of(debugger: Debugger, arguments: argparse.Namespace, offset_word: str | None, start: int) -> _Start:
    """What the words mean: crash's three kinds of beginning, and a list_head as a plain link, which crash does not know."""
    program = debugger.session.program
    offset, link = (0, None) if offset_word is None else offset_in(program, offset_word)
    is_node = link is not None and not _is_pointer(link)

    def pointer_at(where: int) -> int:
        return read_u64(program.memory, where & U64)

    # A list_head's prev, where the link is one as far as is known.
    is_double = link is None or link.has_member_("prev")
    forward, backward = (_PREVIOUS, 0) if arguments.reverse else (0, _PREVIOUS)
    if arguments.reverse and not is_double:
        raise UsageError("only a list of list_heads can be walked backwards")

    def other_way(where: int) -> int:
        return pointer_at(where + backward)

    is_hash_chain = link is not None and link.has_member_("pprev")
    if arguments.list_head is not None:
        previous = other_way if is_double and _is_ring(pointer_at, start, link) else None
        return _Start(pointer_at(start + forward), start, offset, forward, previous, is_hash_chain=is_hash_chain)
    if arguments.in_structure is not None or is_node:
        own = offset if arguments.head_offset is None else offset_in(program, arguments.head_offset)[0]
        head = start + own & U64
        previous = other_way if is_double and _is_ring(pointer_at, head, link) else None
        with_head = arguments.head_offset is None
        return _Start(pointer_at(head + forward), head, offset, forward, previous, with_head, is_hash_chain)
    return _Start(start, None, 0, offset + forward, None)


def _is_pointer(link: Object) -> bool:
    """Whether a member is a plain pointer to the next structure, and not a node of its own."""
    return not any(link.has_member_(name) for name in ("prev", "pprev")) and link.size_ == 8 and not _is_llist(link)


def _is_llist(link: Object) -> bool:
    name: str = link.plain_type_.name
    return name == "llist_node"


def _is_ring(pointer_at: Callable[[int], int], head: int, link: Object | None) -> bool:
    """Whether a list comes back to its head: by its type, else by what the head's second word leads to."""
    if link is not None:
        return link.has_member_("prev")
    try:
        return pointer_at(pointer_at(head + _PREVIOUS)) == head
    except MemoryFault:
        return False


def _walked(debugger: Debugger, how: _Start, arguments: argparse.Namespace, budget: Budget) -> ListWalk:
    program = debugger.session.program
    end = None if arguments.end is None else place(debugger, arguments.end)
    if end is not None:
        return walk(program, how.first, how.next_offset, budget, end, None)
    return walk(program, how.first, how.next_offset, budget, how.head, how.previous_of, is_hash_chain=how.is_hash_chain)


def _break(found: ListWalk, how: _Start) -> ListBreak | None:
    if found.broken_at is None:
        return None
    is_head = found.broken_at == how.head
    return ListBreak(
        found.broken_at,
        None if is_head else found.broken_at - how.offset & U64,
        found.leads_to,
        found.end,
        len(found.nodes),
        None if how.previous_of is None else len(found.from_end),
    )
