"""next: instructions, a call with all that it does as one."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import checked_count, current, run
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import Steps, add_count, add_run_options, moves_guest


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_count(parser)
    add_run_options(parser)


@command(
    "next",
    summary="run instructions, stepping over calls",
    group="stepping",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("ni", "nexti"),
)
def next_(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Answers with what was run and where the CPU stands."""
    if moves_guest(debugger, arguments):
        from orcdbg.commands import live_steps

        return live_steps.next_(debugger, arguments)
    return run(debugger, current(debugger), arguments, lambda _, motions: motions.next(checked_count(arguments.count)))
