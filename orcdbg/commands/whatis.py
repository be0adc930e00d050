"""whatis: the type of an expression, or a type's definition."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.types import DescribedType, described


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("expression", nargs="?", metavar="TYPE|EXPRESSION", help="a C type, or a C expression")


@command(
    "whatis",
    summary="show the type of an expression, or the definition of a type",
    group="data",
    arguments=_arguments,
    operands=("structure", "symbol"),
    takes_expression=True,
    examples=(
        ("whatis init_task.mm", "the type of a member; no memory is read"),
        ("whatis list_head", "what a type is"),
        ("whatis pid_t", "also a typedef"),
    ),
)
def whatis(debugger: Debugger, arguments: argparse.Namespace) -> DescribedType:
    """Answers with a type."""
    return described(debugger, arguments.expression, False)
