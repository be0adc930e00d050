"""tree: what a red-black tree, radix tree, xarray or maple tree holds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
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
from orcdbg.subsystems.containers import maple_tree, rbtree, xarray
from orcdbg.subsystems.containers.lists import MAX_NODES
from orcdbg.typed.program import Program

_KINDS = {
    "rbtree": "rbtree",
    "rb": "rbtree",
    "radix": "xarray",
    "ra": "xarray",
    "xarray": "xarray",
    "x": "xarray",
    "maple": "maple",
    "m": "maple",
}


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """An entry of a tree.

    Attributes:
        address: of the structure; of a number in an xarray or maple tree, the entry itself.
        index: its index, or the first of its range; None in a red-black tree.
        last: the last index of its range.
        position: the way from the root, of a red-black tree's node.
        values: of the members that were asked for.
    """

    address: int
    index: int | None
    last: int | None
    position: str | None
    values: tuple[MemberValue, ...]


@dataclass(frozen=True, slots=True)
class TreeEntries(Result):
    """What is in a tree, in its order."""

    entries: Sequence[TreeEntry]
    is_cut: bool
    with_positions: bool
    symbols: Mapping[int, str]
    in_hexadecimal: bool
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("start", metavar="ADDR|SYMBOL|EXPRESSION", help="the tree's root")
    parser.add_argument(
        "-t",
        "--type",
        choices=tuple(_KINDS),
        metavar="KIND",
        default="rbtree",
        help="rbtree, radix, xarray or maple, or how these begin: rb, ra, x, m (default: rbtree)",
    )
    parser.add_argument(
        "-r",
        "--root",
        metavar="OFFSET",
        help="START is a structure with the root at this offset, a number or STRUCT.MEMBER",
    )
    parser.add_argument(
        "-o",
        "--offset",
        metavar="OFFSET",
        help="where in a structure the rb_node is, a number or STRUCT.MEMBER (default: at its start)",
    )
    parser.add_argument(
        "-N",
        "--node",
        action="store_true",
        help="START is the topmost node itself; of an xarray or maple tree the root's entry",
    )
    add_member_arguments(parser, "entry")
    parser.add_argument("-p", "--positions", action="store_true", help="where in the tree each entry is")
    parser.add_argument("--limit", type=int, metavar="N", help="show the first N entries")


Found = tuple[int, int | None, int | None, str | None]


def _rbtree(program: Program, start: int, arguments: argparse.Namespace, budget: Budget) -> list[Found]:
    offset = 0 if arguments.offset is None else offset_in(program, arguments.offset)[0]
    # The first word of every kind of root is the address of the topmost node.
    top = start if arguments.node else int(program.object("unsigned long", start))
    nodes = rbtree.walk(program, top, budget, f"the tree at {start:#x}")
    return [(node.address - offset & U64, None, None, node.position) for node in nodes]


def _indexed(program: Program, start: int, arguments: argparse.Namespace, budget: Budget) -> list[Found]:
    what = f"the tree at {start:#x}"
    if _KINDS[arguments.type] == "maple":
        root = start if arguments.node else int(program.object("struct maple_tree", start).member_("ma_root"))
        found = maple_tree.walk(program, root, budget, what, None if arguments.node else start)
    else:
        root = start if arguments.node else int(program.object("struct xarray", start).member_("xa_head"))
        found = xarray.walk(program, root, budget, what)
    return [(entry.value, entry.index, entry.last, None) for entry in found]


@command(
    "tree",
    summary="show what a tree holds: red-black, radix, xarray, maple",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(
        ("tree vmap_area_root -o vmap_area.rb_node -s vmap_area.va_start,va_end", "a red-black tree, in its order"),
        (
            "tree -t maple -r mm_struct.mm_mt ffff888005051f40 -s vm_area_struct.vm_start",
            "a maple tree inside a structure",
        ),
        ("tree -t xarray irq_desc_tree -p", "an xarray or radix tree, with the index of each entry"),
        ("tree -t xarray &init_pid_ns.idr.idr_rt", "where an expression leads to"),
    ),
    has_expressions=True,
)
def tree(debugger: Debugger, arguments: argparse.Namespace) -> TreeEntries:
    """Answers with the entries of a tree."""
    if arguments.limit is not None and arguments.limit <= 0:
        raise UsageError(f"not a number of entries: {arguments.limit}", "for example: --limit 100")
    program = debugger.session.program
    wanted = wanted_members(program, [*arguments.struct, *arguments.hexadecimal_struct])
    start = place(debugger, arguments.start)
    if arguments.root is not None:
        start = start + offset_in(program, arguments.root)[0] & U64

    budget = Budget(MAX_NODES)
    is_rbtree = _KINDS[arguments.type] == "rbtree"
    found = (_rbtree if is_rbtree else _indexed)(program, start, arguments, budget)

    is_cut = arguments.limit is not None and len(found) > arguments.limit
    found = found[: arguments.limit]
    structures = [address for address, index, *_ in found if not _is_number(index, address)]
    values = dict(zip(structures, values_at(program, wanted, structures, budget), strict=True))
    entries = [
        TreeEntry(address, index, last, position, () if _is_number(index, address) else values[address])
        for address, index, last, position in found
    ]
    return TreeEntries(
        entries,
        is_cut,
        arguments.positions,
        pointer_names(debugger, [value for entry in entries for value in entry.values]),
        arguments.hexadecimal or debugger.in_hexadecimal or bool(arguments.hexadecimal_struct),
        budget.lines(),
    )


def _is_number(index: int | None, value: int) -> bool:
    """Whether an entry of an xarray or maple tree is no pointer."""
    return index is not None and xarray.is_value(value)
