"""rd: memory as words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result

MAX_READ = 16 << 20


@dataclass(frozen=True, slots=True)
class MemoryWords(Result):
    """Memory as words of `width` bytes."""

    address: int
    width: int
    data: bytes
    names: Sequence[str | None] | None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL")
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many words (default: 1)")
    width = parser.add_mutually_exclusive_group()
    for bits in (8, 16, 32, 64):
        width.add_argument(f"-{bits}", dest="bits", action="store_const", const=bits, help=f"words of {bits} bits")
    space = parser.add_mutually_exclusive_group()
    space.add_argument("-p", "--physical", action="store_true", help="ADDR is a physical address")
    space.add_argument("-u", "--user", action="store_true", help="ADDR is a user address of the selected task")
    parser.add_argument("-s", "--symbols", action="store_true", help="show words that are kernel addresses as symbols")


def _space(debugger: Debugger, address: int, arguments: argparse.Namespace) -> AddressSpace:
    """The memory that an address is of: a user address is the selected task's."""
    session = debugger.session
    if arguments.physical:
        return session.snapshot.physical
    if arguments.user:
        return session.kernel_memory.user_memory(debugger.task)
    if address >> 63:
        return session.memory
    try:
        return session.kernel_memory.user_memory(debugger.task)
    except OrcdbgError:
        return session.memory  # nobody asked for a task's memory: that there is none is no answer


@command(
    "rd",
    summary="read memory",
    group="data",
    arguments=_arguments,
    aliases=("x",),
    operands=("symbol",),
    examples=(
        ("rd linux_banner 8", "eight words"),
        ("rd -s ffffc90000193d00 16", "a piece of stack as symbols"),
        ("rd -u 7ffe8ebd4898 4", "user memory of the selected task"),
    ),
)
def rd(debugger: Debugger, arguments: argparse.Namespace) -> MemoryWords:
    """Answers with words of memory from an address on."""
    session = debugger.session
    width = (arguments.bits or 64) // 8
    size = arguments.count * width
    if not 0 < size <= MAX_READ:
        raise UsageError(
            f"cannot read {arguments.count} words at once", f"1 to {MAX_READ // width} words of {width} bytes"
        )
    address = debugger.address(arguments.where)
    data = _space(debugger, address, arguments).read(address, size)
    names = None
    if arguments.symbols and width == 8:
        values = [int.from_bytes(data[i : i + 8], "little") for i in range(0, size, 8)]
        names = [session.names.describe(value) if value >> 63 else None for value in values]
    return MemoryWords(address, width, data, names)
