"""info: gdb's questions about the selected frame, and about symbols and lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.display import Displays
from orcdbg.commands.frame import FrameDetail, detail
from orcdbg.commands.lines import lookup, positions_of
from orcdbg.commands.local_variables import FrameVariables, variables_of
from orcdbg.commands.registry import Effect, Registry, command
from orcdbg.commands.result import Result
from orcdbg.image.source_position import Position


@dataclass(frozen=True, slots=True)
class SourcePlace(Result):
    """Where in the source an address is; `position` is None where it is not known, and `problems` may say why."""

    address: int
    name: str | None
    position: Position | None
    problems: Sequence[str]


def _number(debugger: Debugger, words: Sequence[str]) -> int:
    """The frame that a question is about: that of a number, or the selected one."""
    if len(words) > 1 or not all(word.isdecimal() for word in words):
        raise UsageError(f"not the number of a frame: {' '.join(words)}", "for example: info locals 3")
    return debugger.frame(int(words[0]) if words else None).index


def _variables(debugger: Debugger, words: Sequence[str], are_arguments: bool) -> FrameVariables:
    found = variables_of(debugger, debugger.trace(), _number(debugger, words))
    chosen = [variable for variable in found.variables if variable.is_argument == are_arguments]
    return replace(found, variables=chosen, is_part=True)


def _locals(debugger: Debugger, words: Sequence[str]) -> FrameVariables:
    return _variables(debugger, words, are_arguments=False)


def _args(debugger: Debugger, words: Sequence[str]) -> FrameVariables:
    return _variables(debugger, words, are_arguments=True)


def _frame(debugger: Debugger, words: Sequence[str]) -> FrameDetail:
    """Everything behind a frame, as `frame` shows it; which one is selected stays."""
    return detail(debugger, _number(debugger, words))


def _line(debugger: Debugger, words: Sequence[str]) -> SourcePlace:
    """The place in the source of an address or symbol, or of the selected frame."""
    address = debugger.address("".join(words).lstrip("*")) if words else lookup(debugger.frame())
    positions, problems = positions_of(debugger.session, [address])
    return SourcePlace(address, debugger.session.names.describe(address), positions.get(address), problems)


def _display(debugger: Debugger, words: Sequence[str]) -> Displays:
    """The expressions that are shown after each step."""
    if words:
        raise UsageError(f"info display takes no {words[0]}")
    return Displays(list(debugger.displays.values()))


# What gdb asks, and the line that asks it here; what follows the word is handed on.
_LINES: Mapping[str, str] = {
    "registers": "regs",
    "symbol": "sym",
    "threads": "ps -A",
    "stack": "bt",
    "files": "sys",
    "sharedlibrary": "mod",
    "breakpoints": "break",
    "watchpoints": "watch",
}
# What no command of its own answers.
_OWN: Mapping[str, Callable[[Debugger, Sequence[str]], Result]] = {
    "args": _args, "display": _display, "frame": _frame, "line": _line, "locals": _locals
}  # fmt: skip
_SHORT = {"r": "registers", "reg": "registers", "f": "frame", "s": "stack", "b": "breakpoints", "sym": "symbol"}
_KNOWN = sorted((*_LINES, *_OWN))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", choices=(*_KNOWN, *_SHORT), metavar="WHAT", help="one of " + ", ".join(_KNOWN)
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="WORD", help="what the question is about")


@command(
    "info",
    summary="gdb's questions: locals, args, registers, frame, symbol, line, threads",
    group="stacks",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("i",),
    operands=("symbol",),
    examples=(
        ("info locals", "variables of the selected frame, of inlined functions too"),
        ("info args 3", "what the function of frame 3 was called with"),
        ("info registers rip", "one register of the selected frame; without a name all"),
        ("info line schedule", "where in the source it is"),
        ("info symbol ffffffff810db5e4", "what is at an address"),
    ),
)
def info(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers the question, or has the command answer it that orcdbg has for it."""
    if arguments.what is None:
        raise UsageError("info takes a question", "one of " + ", ".join(_KNOWN))
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
