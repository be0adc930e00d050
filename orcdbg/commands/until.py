"""until: instructions up to an address."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import NO_LIMIT, current, run
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import Steps, add_run_options, moves_guest


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL", help="where to stop")
    add_run_options(parser)


@command(
    "until",
    summary="run until an address is reached",
    group="stepping",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
)
def until(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Answers with what was run and where the CPU stands."""
    if moves_guest(debugger, arguments):
        from orcdbg.commands import live_steps

        return live_steps.until(debugger, arguments)
    address = debugger.address(arguments.where)
    return run(debugger, current(debugger), arguments, lambda _, motions: motions.run(NO_LIMIT, {address}))
