"""info: gdb's questions about the selected frame, and about symbols and lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.lines import lookup, positions_of
from orcdbg.commands.registry import Registry, command
from orcdbg.commands.result import Result
from orcdbg.image.source_position import Position


@dataclass(frozen=True, slots=True)
class SourcePlace(Result):
    """Where in the source an address is; `position` is None where it is not known, and `problems` may say why."""

    address: int
    name: str | None
    position: Position | None
    problems: Sequence[str]


# What gdb asks, and the line that asks it here; what follows the word is handed on.
_LINES = {
    "registers": "regs",
    "frame": "frame",
    "symbol": "sym",
    "threads": "ps -A",
    "stack": "bt",
    "files": "sys",
    "sharedlibrary": "mod",
    "breakpoints": "break",
    "watchpoints": "watch",
}
_SHORT = {"r": "registers", "reg": "registers", "f": "frame", "s": "stack", "b": "breakpoints", "sym": "symbol"}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=(*_KNOWN, *_SHORT), metavar="WHAT", help="one of " + ", ".join(_KNOWN))
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD", help="what the question is about")


def _line(debugger: Debugger, words: Sequence[str]) -> SourcePlace:
    """The place in the source of an address or symbol, or of the selected frame."""
    address = debugger.address("".join(words).lstrip("*")) if words else lookup(debugger.frame())
    positions, problems = positions_of(debugger.session, [address])
    return SourcePlace(address, debugger.session.names.describe(address), positions.get(address), problems)


_OWN: dict[str, Callable[[Debugger, Sequence[str]], Result]] = {"line": _line}
_KNOWN = sorted((*_LINES, *_OWN))


@command(
    "info",
    summary="gdb's questions: registers, frame, symbol, line, threads",
    group="stacks",
    arguments=_arguments,
    aliases=("i",),
    operands=("symbol",),
    examples=(
        ("info registers", "of the selected frame"),
        ("info line schedule", "where in the source it is"),
        ("info symbol ffffffff810db5e4", "what is at an address"),
    ),
)
def info(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers as the command does that orcdbg has for the question."""
    what = _SHORT.get(arguments.what, arguments.what)
    if what in _OWN:
        return _OWN[what](debugger, arguments.words)
    registry: Registry = arguments.registry
    words = list(arguments.words)
    if what == "symbol" and words[:1] == ["*"]:
        words = words[1:]
    line, *options = _LINES[what].split()
    command_ = registry.find(line)
    if command_ is None:
        raise UsageError(f"info {what} is not offered")
    return command_.run(
        debugger, command_.parser().parse_args([*options, *words], argparse.Namespace(registry=registry))
    )
