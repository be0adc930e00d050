"""rd: memory as words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
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
    parser.add_argument("-p", "--physical", action="store_true", help="ADDR is a physical address")
    parser.add_argument("-s", "--symbols", action="store_true", help="show words that are kernel addresses as symbols")


@command(
    "rd",
    summary="read memory",
    group="data",
    arguments=_arguments,
    aliases=("x",),
    operands=("symbol",),
    examples=(("rd linux_banner 8", "eight words"), ("rd -s ffffc90000193d00 16", "a piece of stack as symbols")),
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
    space = session.snapshot.physical if arguments.physical else session.memory
    data = space.read(address, size)
    names = None
    if arguments.symbols and width == 8:
        values = [int.from_bytes(data[i : i + 8], "little") for i in range(0, size, 8)]
        names = [session.names.describe(value) if value >> 63 else None for value in values]
    return MemoryWords(address, width, data, names)
