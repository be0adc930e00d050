"""dis: text as it ran, with the CFA rule at every instruction."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orcdbg.base.errors import MemoryFault, NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.instructions import MAX_LENGTH, ListedInstruction, disassemble
from orcdbg.commands.lines import lookup, positions_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.image.source_position import Position
from orcdbg.kernel.names import Location
from orcdbg.patches.text import TextSource
from orcdbg.target.session import Session
from orcdbg.x86.instructions import outline

_LONGEST = 15  # bytes of an instruction


@dataclass(frozen=True, slots=True)
class Disassembly(Result):
    """Instructions in order of address; `source` says whether they are from memory or replayed.

    `positions` are places in the source by address; empty where none were asked for. `current` is the address that gets an
    arrow. With `in_decimal` offsets in the function are decimal.
    """

    instructions: Sequence[ListedInstruction]
    source: TextSource
    show_image: bool
    positions: Mapping[int, Position] = field(default_factory=dict)
    problems: Sequence[str] = ()
    current: int | None = None
    in_decimal: bool = False


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "where",
        nargs="?",
        metavar="ADDR|SYMBOL|(EXPRESSION)",
        help="where to start, or an expression in brackets (default: the selected frame's ip)",
    )
    parser.add_argument("count", nargs="?", type=int, help="how many instructions")
    parser.add_argument("-r", "--reverse", action="store_true", help="from the function's start up to the address")
    parser.add_argument("-f", "--forward", action="store_true", help="from the address to the function's end")
    parser.add_argument("-l", "--lines", action="store_true", help="source lines and inlined functions, from DWARF")
    parser.add_argument(
        "-s",
        "--source",
        action="store_true",
        help="the function's source lines; with -r up to the address, with -f from it",
    )
    radix = parser.add_mutually_exclusive_group()
    radix.add_argument(
        "-x", dest="in_decimal", action="store_false", default=False, help="offsets in hexadecimal (the default)"
    )
    radix.add_argument("-d", dest="in_decimal", action="store_true", help="offsets in the function in decimal")
    parser.add_argument("--diff", action="store_true", help="where text was changed, also show the image's")


def _default_count(arguments: argparse.Namespace, address: int, location: Location | None) -> int | None:
    """How many instructions are meant where no number is given; None for all up to the function's end."""
    is_whole_function = location is not None and location.start == address
    if is_whole_function or arguments.reverse or arguments.forward:
        return None
    return 1 if arguments.where else 8


def _lines(debugger: Debugger, arguments: argparse.Namespace, address: int) -> list[ListedInstruction]:
    """The instructions that are asked for."""
    session = debugger.session
    location = session.names.at(address)
    count = arguments.count

    if arguments.reverse:
        if location is None:
            raise NotFound("function", f"{address:#x}", "-r needs an address inside a function")
        lines = disassemble(session, location.start, address + 1, None)
        return lines[-count:] if count else lines

    end = location.start + location.size if location else address + 16
    if count is None:
        return disassemble(session, address, end, _default_count(arguments, address, location))
    return disassemble(session, address, _end(end, address, count), count)


def _holder(session: Session, address: int) -> int | None:
    """The instruction that holds an address which is not its own, counted from the function's start; None where none does."""
    location = session.names.at(address)
    if location is None or address - location.start > MAX_LENGTH:
        return None
    try:
        code, _ = session.text.read_from(location.start, address - location.start + _LONGEST)
    except MemoryFault:
        return None
    holders = (start for start, size, _, _ in outline(code, location.start) if start <= address < start + size)
    holder = next(holders, address)
    return holder if holder != address else None


def _end(end: int, start: int, count: int | None) -> int:
    """Where the listing ends at the latest: the function's end does not cut off instructions that were asked for."""
    return end if count is None else max(end, start + _LONGEST * count)


_COUNT = re.compile(r"\)\s*([0-9]{1,9})$")


def _place(debugger: Debugger, arguments: argparse.Namespace) -> tuple[int | None, int | None]:
    """The address that is named, None where none is, and how many instructions are asked for."""
    where: str | None = arguments.where
    if where is None or not where.startswith("("):
        return debugger.address(where) if where else None, arguments.count
    from orcdbg.commands.scope import address_of, one_value  # a name needs none of it

    count = _COUNT.search(where)
    written = where[: count.start() + 1] if count is not None else where
    return address_of(one_value(debugger, written)), int(count[1]) if count is not None else arguments.count


def _source(debugger: Debugger, arguments: argparse.Namespace, address: int) -> Result:
    from orcdbg.commands import source_text  # instructions need none of it

    location = debugger.session.names.at(address)
    if location is None:
        raise NotFound("function", f"{address:#x}", "-s needs an address inside a function")
    code = disassemble(debugger.session, location.start, location.start + location.size, None)
    addresses = [line.address for line in code]
    found = source_text.of_function(debugger, address, addresses, arguments.reverse, arguments.forward)
    if arguments.count is None:
        return found
    lines = found.lines[-arguments.count :] if arguments.reverse else found.lines[: arguments.count]
    first = found.first + len(found.lines) - len(lines) if arguments.reverse else found.first
    return replace(found, first=first, lines=lines)


@command(
    "dis",
    summary="disassemble text as it ran, with the CFA rule at every instruction",
    group="code",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    takes_brackets=True,
    examples=(
        ("dis schedule", "a whole function"),
        ("dis --diff _raw_spin_lock_irqsave 5", "with what the image had where text was changed"),
        ("dis -r ffffffff818b5e08", "from the function's start up to an address"),
        ("dis (init_task.sched_class->dequeue_task) 5", "where an expression leads to; options stand before it"),
        ("dis -s schedule", "the source of a function; its text needs --source DIR"),
    ),
)
def dis(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the instructions at an address, or up to it; or with the source of its function."""
    session = debugger.session
    place, arguments.count = _place(debugger, arguments)
    if arguments.count is not None and arguments.count <= 0:
        raise UsageError(f"not a number of instructions: {arguments.count}")

    address = debugger.frame().ip if place is None else place
    if arguments.source:
        return _source(debugger, arguments, lookup(debugger.frame()) if place is None else place)
    lines = _lines(debugger, arguments, address)
    positions, problems = positions_of(session, [line.address for line in lines]) if arguments.lines else ({}, [])
    # Up to an address the listing is right; from one in the middle on, these are no instructions that the function has.
    holder = None if arguments.reverse else _holder(session, address)
    if holder is not None:
        where = f"{address:#x} is in the middle of the instruction at {session.names.describe(holder)}"
        problems = [*problems, f"{where}: the function has no such instructions"]

    location = session.names.at(address) if arguments.reverse else None
    start = location.start if location else address
    return Disassembly(
        lines, session.text.read_from(start, 1)[1], arguments.diff, positions, problems, in_decimal=arguments.in_decimal
    )
