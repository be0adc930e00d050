"""break: where runs stop."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import stops
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import moves_guest
from orcdbg.commands.stops import Stops


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="?", metavar="ADDR|SYMBOL", help="where to stop (default: list the breakpoints)")


@command(
    "break",
    summary="set a breakpoint for stepping and live guests, or list all breakpoints",
    group="stepping",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("b",),
    operands=("symbol",),
)
def break_(debugger: Debugger, arguments: argparse.Namespace) -> Stops:
    """Answers with all breakpoints and watched memory."""
    if moves_guest(debugger, arguments):
        from orcdbg.commands import live_steps

        return live_steps.set_breakpoint(debugger, arguments)
    if arguments.where:
        debugger.breakpoints.add(debugger.address(arguments.where))
    return stops(debugger)
