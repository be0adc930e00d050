"""p: the value of a C expression."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.printing import Printed, add_arguments, printed
from orcdbg.commands.registry import Effect, command


@command(
    "p",
    summary="print the value of a C expression",
    group="data",
    effect=Effect.NONE,
    arguments=add_arguments,
    aliases=("print",),
    operands=("symbol",),
    takes_expression=True,
    examples=(
        ("p init_task.comm", "a member of a variable"),
        ("p ((struct task_struct *)0xffff888003d3a000)->mm->pgd", "through pointers, from an address on"),
        ("p container_of(init_task.tasks.next, struct task_struct, tasks)->pid", "the structure around a member"),
        ("p runqueues:a", "a per-CPU variable of every CPU; :0-3 of these, : of the selected task's"),
        ("p *init_task.cred->user@1", "so many elements from there on"),
        ("p (1 << 12) | 7", "a number"),
        ("p $rsp", "a register of the selected frame; $1 is the first value shown"),
    ),
)
def p(debugger: Debugger, arguments: argparse.Namespace) -> Printed:
    """Answers with an expression's value, in the format that is asked for."""
    return printed(debugger, arguments)
