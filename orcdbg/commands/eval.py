"""eval: a number in hexadecimal, decimal, octal and binary."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.scope import one_value

_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}
# What no C number is: a unit behind it, as in 128m, or hexadecimal digits without 0x.
_WORD = re.compile(r"(?<![\w.$>])(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)(?P<unit>[kmgtKMGT])|(?P<hex>[0-9a-fA-F]+))(?!\w)")


@dataclass(frozen=True, slots=True)
class EvaluatedNumber(Result):
    """A number of 64 bits; `with_bits` asks for the numbers of the bits that are set."""

    number: int
    with_bits: bool

    @property
    def low(self) -> int:
        """As an unsigned number of 64 bits."""
        return self.number & U64

    @property
    def signed(self) -> int:
        """As a signed number of 64 bits."""
        return self.low - (1 << 64) if self.low >> 63 else self.low

    @property
    def bits(self) -> list[int]:
        """The bits that are set, the highest first."""
        return [bit for bit in range(63, -1, -1) if self.low >> bit & 1]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--bits", action="store_true", help="also the numbers of the bits that are set")
    parser.add_argument(
        "expression", nargs="?", metavar="EXPRESSION", help="128m, ffff888000000000, 0x10 + 3, (1 << 12) - 1"
    )


def _in_c(debugger: Debugger, written: str) -> str:
    """The expression with crash's numbers as C's; a word that is a symbol stays one."""

    def number(match: re.Match[str]) -> str:
        if match["unit"]:
            return f"({match['number']}ul << {_UNITS[match['unit'].lower()]})"
        word = match["hex"]
        is_decimal = word.isdigit()
        if is_decimal or debugger.session.linux.find_address(word) is not None:
            return word
        return f"0x{word}"

    return _WORD.sub(number, written)


@command(
    "eval",
    summary="show a number in hexadecimal, decimal, octal and binary",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    takes_expression=True,
    examples=(
        ("eval 128m", "k, m, g and t are units"),
        ("eval ffffffff81000000 + 0x10", "hexadecimal digits need no 0x where no decimal number could be meant"),
        ("eval -b 0x80420", "and which bits are set"),
    ),
)
def eval_(debugger: Debugger, arguments: argparse.Namespace) -> EvaluatedNumber:
    """Answers with a number."""
    if arguments.expression is None:
        raise UsageError("no number", "for example: eval 128m")
    return EvaluatedNumber(int(one_value(debugger, _in_c(debugger, arguments.expression))), arguments.bits)
