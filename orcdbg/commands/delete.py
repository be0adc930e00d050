"""delete: a breakpoint or watched memory is forgotten."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import NotFound
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import stops
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import moves_guest
from orcdbg.commands.stops import Stops


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", nargs="?", type=int, help="its number in the list that `break` prints (default: all)")


@command(
    "delete", summary="delete a breakpoint or a watchpoint", group="stepping", effect=Effect.NONE, arguments=_arguments
)
def delete(debugger: Debugger, arguments: argparse.Namespace) -> Stops:
    """Answers with what is left."""
    if moves_guest(debugger, arguments):
        from orcdbg.commands import live_steps

        return live_steps.delete(debugger, arguments)

    if arguments.number is None:
        # Emulations share these two, so they are emptied where they are.
        debugger.breakpoints.clear()
        debugger.watches.clear()
        return stops(debugger)

    chosen = next((stop for stop in stops(debugger).stops if stop[0] == arguments.number), None)
    if chosen is None:
        raise NotFound("breakpoint", str(arguments.number), "`break` lists them")
    _, address, size, _ = chosen
    if size:
        debugger.watches.remove((address, size))
    else:
        debugger.breakpoints.discard(address)
    return stops(debugger)
