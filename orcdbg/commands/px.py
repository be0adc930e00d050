"""px: the value of a C expression, its numbers in hexadecimal."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.printing import Printed, add_arguments, printed
from orcdbg.commands.registry import Effect, command


@command(
    "px",
    summary="print the value of a C expression, numbers in hexadecimal",
    group="data",
    effect=Effect.NONE,
    arguments=add_arguments,
    operands=("symbol",),
    takes_expression=True,
    examples=(("px init_task.flags", "as p/x"),),
)
def px(debugger: Debugger, arguments: argparse.Namespace) -> Printed:
    """Answers as `p -x`."""
    return printed(debugger, arguments, "x")
