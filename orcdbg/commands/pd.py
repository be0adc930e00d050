"""pd: the value of a C expression, its numbers in decimal."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.printing import Printed, add_arguments, printed
from orcdbg.commands.registry import Effect, command


@command(
    "pd",
    summary="print the value of a C expression, numbers in decimal",
    group="data",
    effect=Effect.NONE,
    arguments=add_arguments,
    operands=("symbol",),
    takes_expression=True,
    examples=(("pd init_task.flags", "as p/d"),),
)
def pd(debugger: Debugger, arguments: argparse.Namespace) -> Printed:
    """Answers as `p -d`."""
    return printed(debugger, arguments, "d")
