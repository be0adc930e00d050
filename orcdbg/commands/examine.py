"""x/FMT: memory in gdb's formats; plain `x` is `rd`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.reading import read_cstring
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.dis import Disassembly
from orcdbg.commands.instructions import disassemble
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.scope import address_of, evaluated
from orcdbg.expressions.words import FORMATS, format_number
from orcdbg.typed.types import VOID, pointer_to

MAX_COUNT = 1 << 16
MAX_STRING = 4096

_FORMAT = re.compile(r"(\d*)([a-z]*)")
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_LONGEST = 15  # bytes of an instruction


@dataclass(frozen=True, slots=True)
class ExaminedPlace:
    """One number, string or address in memory: where, its symbol, the number (None of a string), and as it is written."""

    address: int
    symbol: str | None
    number: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Examined(Result):
    """Memory in a format; `width` bytes are one number, 0 for strings."""

    width: int
    places: Sequence[ExaminedPlace]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression", nargs="?", metavar="ADDRESS", help="a C expression (default: behind what was shown last)"
    )


def _taken_apart(given: str) -> tuple[int, str, int]:
    """Count, format and size of `8gx`; both letters in any order."""
    match = _FORMAT.fullmatch(given)
    hint = f"count, format ({', '.join(FORMATS)}, s, i) and size (b, h, w, g): x/8gx, x/s, x/4i"
    if match is None:
        raise UsageError(f"no such format: /{given}", hint)
    letter, size = "x", 0
    for each in match[2]:
        if each in _SIZES:
            size = _SIZES[each]
        elif each in f"{FORMATS}si":
            letter = each
        else:
            raise UsageError(f"no such format: /{given}", hint)
    count = int(match[1] or 1) if len(match[1]) <= 6 else 0
    if not 0 < count <= MAX_COUNT:
        raise UsageError(f"cannot show {match[1]} at once", f"1 to {MAX_COUNT}")
    return count, letter, size or {"c": 1, "a": 8}.get(letter, 8)


def _address(debugger: Debugger, written: str | None) -> int:
    """What an expression means as an address: a pointer's or number's value, and where anything else is."""
    if written is None:
        following = debugger.values.following_address
        if following is None:
            raise UsageError("no address", "name one: x/8gx ADDRESS")
        return int(following)
    try:
        _, found = evaluated(debugger, written).values[0]
    except UsageError:
        # A symbol without a type has an address all the same.
        return debugger.address(written)
    return address_of(found)


@command(
    "examine",
    summary="show memory in gdb's formats (x/FMT)",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("x/",),
    operands=("symbol",),
    takes_expression=True,
    examples=(
        ("examine/8gx $rsp", "x/8gx: eight words of 64 bits, from the stack pointer on"),
        ("examine/s &linux_banner", "x/s: a string"),
        ("examine/4i $rip", "x/4i: instructions, as `dis` shows them"),
    ),
)
def examine(debugger: Debugger, arguments: argparse.Namespace) -> Examined | Disassembly:
    """Answers with memory from an address on."""
    count, letter, size = _taken_apart(arguments.format)
    address = _address(debugger, arguments.expression)
    session = debugger.session
    if letter == "i":
        lines = disassemble(session, address, address + _LONGEST * count, count)
        _remember(debugger, lines[-1].address, lines[-1].address + len(lines[-1].raw))
        return Disassembly(lines, session.text.read_from(address, 1)[1], False)
    if letter == "s":
        return _strings(debugger, address, count)

    data = session.memory.read(address, count * size)
    places = []
    for start in range(0, len(data), size):
        number = int.from_bytes(data[start : start + size], "little")
        text = (
            _pointer_text(session.names.describe(number), number)
            if letter == "a"
            else format_number(number, 8 * size, letter)
        )
        if letter == "x":
            text = f"0x{number:0{2 * size}x}"
        places.append(ExaminedPlace(address + start & U64, session.names.describe(address + start), number, text))
    _remember(debugger, address + len(data) - size, address + len(data))
    return Examined(size, places)


def _pointer_text(name: str | None, number: int) -> str:
    return f"{number:#x} <{name}>" if name else f"{number:#x}"


def _strings(debugger: Debugger, address: int, count: int) -> Examined:
    memory, names = debugger.session.memory, debugger.session.names
    places: list[ExaminedPlace] = []
    last = address
    for _ in range(min(count, MAX_COUNT)):
        try:
            data = read_cstring(memory, address, MAX_STRING)
        except OrcdbgError:
            if not places:
                raise
            break  # what can be read is shown
        text = data.decode("utf-8", "backslashreplace").replace("\\", "\\\\").replace('"', '\\"')
        places.append(ExaminedPlace(address, names.describe(address), None, f'"{text}"'))
        last, address = address, address + len(data) + 1 & U64
    _remember(debugger, last, address)
    return Examined(0, places)


def _remember(debugger: Debugger, last: int, following: int) -> None:
    """Keeps `$_` and where the next line without an address goes on."""
    program = debugger.session.program
    debugger.values.last_address = program.value(pointer_to(VOID), last)
    debugger.values.following_address = program.value(pointer_to(VOID), following)
