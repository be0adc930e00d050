"""sym: the symbol of a name or of an address."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.near_names import did_you_mean
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.lines import positions_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import NoneFits, Result
from orcdbg.image.source_position import Position
from orcdbg.kernel.modules import Module
from orcdbg.kernel.names import Location
from orcdbg.symbols.table import Symbol, SymbolTable


@dataclass(frozen=True, slots=True)
class SymbolLine:
    """One symbol: `size` up to the next one; `position` is its place in the source, where that was looked up and is known."""

    address: int
    letter: str
    name: str
    offset: int
    size: int
    module: str | None
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Symbols(Result):
    """Symbols that were asked for."""

    symbols: Sequence[SymbolLine]
    problems: Sequence[str] = ()


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="*", metavar="NAME|ADDR", help="a symbol's name, or any address")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-q", "--query", action="store_true", help="list all symbols whose name contains the word")
    which.add_argument("-l", "--list", action="store_true", help="list all symbols, those of modules too")
    which.add_argument("-m", "--module", metavar="MODULE", help="list the symbols of a module")
    which.add_argument("-M", "--all-modules", action="store_true", help="list the symbols of all modules")
    parser.add_argument("-p", "--previous", action="store_true", help="also the symbol before it")
    parser.add_argument("-n", "--next", action="store_true", help="also the symbol behind it")


def _line(debugger: Debugger, address: int, letter: str | None = None) -> SymbolLine:
    location = debugger.session.names.at(address)
    if location is None:
        raise NotFound("symbol at address", f"{address:#x}")
    shown = letter or _letter(debugger, location)
    return SymbolLine(address, shown, location.symbol, address - location.start, location.size, location.module)


def _letter(debugger: Debugger, location: Location) -> str:
    names = debugger.session.names
    module = names.module_at(location.start)
    if module is None:
        found = debugger.session.symbols.find(location.symbol)
        return found.letter if found else "t"
    symbol = Symbol(location.symbol, location.start, 0, "", False)
    return names.module_symbols[module.address].letter(symbol) or ("t" if location.is_text else "d")


def _lines(debugger: Debugger, symbols: Iterable[Symbol]) -> list[SymbolLine]:
    linux = debugger.session.linux
    lines = []
    for symbol in symbols:
        address = linux.run_time(symbol)
        size = linux.symbols.size_at(symbol.address) if symbol.address >> 63 else symbol.size
        lines.append(SymbolLine(address, symbol.letter, symbol.name, 0, size or symbol.size, None))
    return lines


# Lists


def _of_module(debugger: Debugger, module: Module, part: str = "") -> list[SymbolLine]:
    """A module's symbols by address; OrcdbgError where they cannot be read."""
    symbols = debugger.session.names.module_symbols[module.address]
    table: SymbolTable = symbols.table
    found = [symbol for symbol in table.containing(part) if module.holds(symbol.address)]
    sizes = [_size_in(module, table, symbol) for symbol in found]
    text_start, text_size = module.text
    return [
        SymbolLine(
            symbol.address,
            symbols.letter(symbol) or ("t" if text_start <= symbol.address < text_start + text_size else "d"),
            symbol.name,
            0,
            size,
            module.name,
        )
        for symbol, size in zip(found, sizes, strict=True)
    ]


def _size_in(module: Module, table: SymbolTable, symbol: Symbol) -> int:
    """The distance to the next symbol, or to the end of the module's area."""
    end = next(start + size for start, size in module.ranges if start <= symbol.address < start + size)
    following = table.size_at(symbol.address)
    return end - symbol.address if following is None else min(following, end - symbol.address)


def _of_modules(debugger: Debugger, part: str = "") -> Symbols:
    """The symbols of all modules, and why those of some cannot be had."""
    lines: list[SymbolLine] = []
    problems = list(debugger.session.names.problems)
    for module in debugger.session.names.modules:
        try:
            lines += _of_module(debugger, module, part)
        except OrcdbgError as error:
            problems.append(f"module {module.name}: {error}")
    return Symbols(lines, problems)


def named_module(debugger: Debugger, name: str) -> Module:
    """The loaded module of a name; NotFound, with names that may have been meant."""
    names = debugger.session.names
    for module in names.modules:
        if module.name == name:
            return module
    raise NotFound("module", name, lambda: did_you_mean(names.near_modules(name)) or "`mod` lists them")


def _containing(debugger: Debugger, parts: Sequence[str]) -> Symbols:
    """The symbols whose name contains one of some words: the kernel's by address, then the modules'."""
    table = debugger.session.symbols
    lines: list[SymbolLine] = []
    problems: list[str] = []
    for part in parts:
        of_modules = _of_modules(debugger, part)
        lines += [*_lines(debugger, table.containing(part)), *of_modules.symbols]
        problems += of_modules.problems
    return Symbols(lines, list(dict.fromkeys(problems)))


# Single symbols


def _found(debugger: Debugger, word: str) -> list[SymbolLine]:
    """The symbols of a name, those of modules too; or the one at an address."""
    found = _lines(debugger, debugger.session.symbols.find_all(word))
    if not found and word.isidentifier():
        found = [line for module in debugger.session.names.modules for line in _named_in(debugger, module, word)]
    return found or [_line(debugger, debugger.address(word))]


def _named_in(debugger: Debugger, module: Module, name: str) -> Iterator[SymbolLine]:
    try:
        symbol = debugger.session.names.module_symbols[module.address].table.find(name)
    except OrcdbgError:
        return
    if symbol is not None:
        try:
            yield _line(debugger, symbol.address)
        except NotFound:
            yield SymbolLine(symbol.address, symbol.letter, symbol.name, 0, symbol.size, module.name)


def _beside(debugger: Debugger, symbol: SymbolLine, *, behind: bool) -> Iterator[SymbolLine]:
    """The symbol before or behind one; none at either end of what the kernel names."""
    start = symbol.address - symbol.offset
    address = start + symbol.size if behind else start - 1
    location = debugger.session.names.at(address)
    if location is not None:
        yield _line(debugger, location.start)


def _with_lines(debugger: Debugger, lines: list[SymbolLine]) -> list[SymbolLine]:
    """The symbols with their places in the source, where the image has DWARF."""
    positions, _ = positions_of(debugger.session, [line.address for line in lines if line.letter in "tTwW"])
    return [replace(line, position=positions.get(line.address)) for line in lines]


@command(
    "sym",
    summary="look up a symbol by name or address",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(
        ("sym schedule", "by name"),
        ("sym ffffffff810db5e4", "by address"),
        ("sym -q save_fl", "by part"),
        ("sym -p -n schedule", "with the symbols on either side"),
        ("sym -m loop", "all of a module"),
    ),
)
def sym(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with every symbol that the words name."""
    listed = arguments.list or arguments.all_modules or arguments.module is not None
    if listed == bool(arguments.what):
        raise UsageError("sym takes names or addresses, or one of -l, -m and -M", "for example: sym schedule")
    if arguments.module is not None:
        return Symbols(_of_module(debugger, named_module(debugger, arguments.module)))
    if arguments.all_modules:
        return _of_modules(debugger)
    if arguments.list:
        return _containing(debugger, [""])
    if arguments.query:
        found = _containing(debugger, arguments.what)
        return found if found.symbols else NoneFits("symbols", found, found.problems)

    lines: list[SymbolLine] = []
    for word in arguments.what:
        for symbol in _found(debugger, word):
            lines += _beside(debugger, symbol, behind=False) if arguments.previous else ()
            lines.append(symbol)
            lines += _beside(debugger, symbol, behind=True) if arguments.next else ()
    return Symbols(_with_lines(debugger, lines))
