"""ptype: the definition of an expression's type."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.types import DescribedType, described


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("expression", nargs="?", metavar="TYPE|EXPRESSION", help="a C type, or a C expression")


@command(
    "ptype",
    summary="show the definition of a type, or of an expression's type",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("structure", "symbol"),
    takes_expression=True,
    examples=(
        ("ptype init_task.tasks.next", "what it points to"),
        ("ptype gfp_t", "through its typedefs"),
        ("ptype enum pid_type", "enumerators, with their numbers"),
    ),
)
def ptype(debugger: Debugger, arguments: argparse.Namespace) -> DescribedType:
    """Answers with what a type is made of."""
    return described(debugger, arguments.expression, True)
