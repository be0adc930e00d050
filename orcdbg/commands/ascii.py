"""ascii: the characters of a number's bytes, or the table of all characters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result

_MAX_DIGITS = 4096


@dataclass(frozen=True, slots=True)
class Characters(Result):
    """Words of memory as the characters that their bytes are, the lowest byte first; none of them: the table is asked for."""

    words: Sequence[tuple[str, bytes]]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("values", nargs="*", metavar="VALUE", help="hexadecimal words as `rd` shows them")


@command(
    "ascii",
    summary="show the characters in hexadecimal words, or the table of characters",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("ascii 62696c2f7273752f", "/usr/lib"), ("ascii", "the table")),
)
def ascii_(debugger: Debugger, arguments: argparse.Namespace) -> Characters:
    """Answers with the characters in words of memory."""
    words = []
    for value in arguments.values:
        digits = value.lower().removeprefix("0x")
        try:
            number = int(digits, 16) if len(digits) <= _MAX_DIGITS else -1
        except ValueError:
            number = -1
        if number < 0 or "_" in digits:
            raise UsageError(f"not a hexadecimal word: {value[:40]}")
        words.append((digits, number.to_bytes(max(1, -(-len(digits) // 2)), "little")))
    return Characters(words)
