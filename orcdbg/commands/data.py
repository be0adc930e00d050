"""sym and rd: names of addresses, and memory as words."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Result, SymbolLine, Symbols, Words
from orcdbg.symbols.table import Symbol

MAX_READ = 16 << 20


def _sym_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="NAME|ADDR", help="a symbol's name, or any address")
    parser.add_argument("-q", "--query", action="store_true", help="all symbols whose name contains the word")


def _line(debugger: Debugger, address: int, letter: str | None = None) -> SymbolLine:
    location = debugger.session.names.at(address)
    if location is None:
        raise NotFound("symbol at address", f"{address:#x}")
    shown = letter or _letter(debugger, location.symbol, location.module)
    return SymbolLine(address, shown, location.symbol, address - location.start, location.size, location.module)


def _letter(debugger: Debugger, name: str, module: str | None) -> str:
    found = debugger.session.symbols.find(name) if module is None else None
    return found.letter if found else "t"


def _lines(debugger: Debugger, symbols: list[Symbol]) -> list[SymbolLine]:
    linux = debugger.session.linux
    lines = []
    for symbol in symbols:
        address = linux.run_time(symbol)
        span = linux.symbols.at(symbol.address)
        size = span.size if span else symbol.size
        lines.append(SymbolLine(address, symbol.letter, symbol.name, 0, size, None))
    return lines


def _sym(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    table = debugger.session.symbols
    lines: list[SymbolLine] = []
    for word in arguments.what:
        if arguments.query:
            lines += _lines(debugger, table.containing(word))
        else:
            lines += _lines(debugger, table.find_all(word)) or [_line(debugger, debugger.address(word))]
    return Symbols(lines)


def _rd_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL")
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many words; 1 without")
    width = parser.add_mutually_exclusive_group()
    for bits in (8, 16, 32, 64):
        width.add_argument(f"-{bits}", dest="bits", action="store_const", const=bits, help=f"words of {bits} bits")
    parser.add_argument("-p", "--physical", action="store_true", help="ADDR is a physical address")
    parser.add_argument("-s", "--symbols", action="store_true", help="words that are kernel addresses as symbols")


def _rd(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    session = debugger.session
    width = (arguments.bits or 64) // 8
    size = arguments.count * width
    if not 0 < size <= MAX_READ:
        raise UsageError(f"not a count of words to read: {arguments.count}")
    address = debugger.address(arguments.where)
    space = session.snapshot.physical if arguments.physical else session.memory
    data = space.read(address, size)
    names = None
    if arguments.symbols and width == 8:
        values = [int.from_bytes(data[i : i + 8], "little") for i in range(0, size, 8)]
        names = [session.names.describe(value) if value >> 63 else None for value in values]
    return Words(address, width, data, names)


COMMANDS = (
    Command(
        "sym",
        "show the symbol of a name or an address",
        "data",
        _sym,
        _sym_arguments,
        examples=(("sym schedule", "by name"), ("sym ffffffff810db5e4", "by address"), ("sym -q save_fl", "by part")),
        operands=("symbol",),
    ),
    Command(
        "rd",
        "read memory",
        "data",
        _rd,
        _rd_arguments,
        aliases=("x",),
        examples=(("rd linux_banner 8", "eight words"), ("rd -s ffffc90000193d00 16", "a piece of stack as symbols")),
        operands=("symbol",),
    ),
)
