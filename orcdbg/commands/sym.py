"""sym: the symbol of a name or of an address."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.symbols.table import Symbol


@dataclass(frozen=True, slots=True)
class SymbolLine:
    """One symbol: `size` up to the next one."""

    address: int
    letter: str
    name: str
    offset: int
    size: int
    module: str | None


@dataclass(frozen=True, slots=True)
class Symbols(Result):
    """Symbols that were asked for."""

    symbols: Sequence[SymbolLine]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="NAME|ADDR", help="a symbol's name, or any address")
    parser.add_argument("-q", "--query", action="store_true", help="list all symbols whose name contains the word")


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


@command(
    "sym",
    summary="look up a symbol by name or address",
    group="data",
    arguments=_arguments,
    operands=("symbol",),
    examples=(("sym schedule", "by name"), ("sym ffffffff810db5e4", "by address"), ("sym -q save_fl", "by part")),
)
def sym(debugger: Debugger, arguments: argparse.Namespace) -> Symbols:
    """Answers with every symbol that the words name."""
    table = debugger.session.symbols
    lines: list[SymbolLine] = []
    for word in arguments.what:
        if arguments.query:
            lines += _lines(debugger, table.containing(word))
        else:
            lines += _lines(debugger, table.find_all(word)) or [_line(debugger, debugger.address(word))]
    return Symbols(lines)
