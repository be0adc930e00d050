"""disassemble: gdb's way to show a whole function."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.dis import Disassembly
from orcdbg.commands.instructions import MAX_LENGTH, disassemble
from orcdbg.commands.lines import positions_of
from orcdbg.commands.registry import Effect, command

_MODIFIERS = frozenset("rms")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "where",
        nargs="*",
        metavar="[/MODIFIERS] [ADDR|START,END|START,+LENGTH]",
        help="an address in the function, or a range (default: the selected frame's function)",
    )


def _range(debugger: Debugger, text: str) -> tuple[int, int]:
    """Start and end of what a word names: `START,END`, `START,+LENGTH`, or the function around an address."""
    first, comma, last = text.partition(",")
    start = debugger.address(first)
    if comma:
        end = start + _number(last[1:]) if last.startswith("+") else debugger.address(last)
        if not 0 < end - start <= MAX_LENGTH:
            raise UsageError(f"not a range: {text}", "for example: disassemble schedule,+32")
        return start, end
    location = debugger.session.names.at(start)
    if location is None:
        raise NotFound("function", text, "a range needs none: disassemble START,+LENGTH")
    return location.start, location.start + location.size


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise UsageError(f"not a length: {text}") from error


@command(
    "disassemble",
    summary="disassemble a whole function, as gdb's word does",
    group="code",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("disas",),
    operands=("symbol",),
    examples=(
        ("disassemble", "the selected frame's function, with an arrow at its ip"),
        ("disassemble /s schedule", "a function, with source lines"),
        ("disassemble schedule,+32", "so many bytes"),
    ),
)
def disassemble_(debugger: Debugger, arguments: argparse.Namespace) -> Disassembly:
    """Answers with the instructions of a function or of a range."""
    session = debugger.session
    words = list(arguments.where)
    modifiers = words.pop(0)[1:] if words and words[0].startswith("/") else ""
    if not set(modifiers) <= _MODIFIERS:
        raise UsageError(f"no such modifier: /{modifiers}", "/s and /m show source lines; bytes are always shown (/r)")
    frame = None if words else debugger.frame()
    start, end = _range(debugger, "".join(words) if frame is None else f"{frame.ip if frame.exact else frame.ip - 1:x}")
    lines = disassemble(session, start, end, None)
    wanted = [line.address for line in lines] if {"s", "m"} & set(modifiers) else []
    positions, problems = positions_of(session, wanted) if wanted else ({}, [])
    current = frame.ip if frame is not None else None
    return Disassembly(lines, session.text.read_from(start, 1)[1], False, positions, problems, current)
