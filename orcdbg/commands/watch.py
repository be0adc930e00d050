"""watch: memory whose changes stop runs."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import stops
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import moves_guest
from orcdbg.commands.stops import Stops


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL", help="the memory to watch")
    parser.add_argument("size", nargs="?", type=int, default=8, help="how many bytes (default: 8)")


@command(
    "watch",
    summary="set a watchpoint: stop when memory changes",
    group="stepping",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
)
def watch(debugger: Debugger, arguments: argparse.Namespace) -> Stops:
    """Answers with all breakpoints and watched memory."""
    if moves_guest(debugger, arguments):
        from orcdbg.commands import live_steps

        return live_steps.watch(debugger, arguments)
    address = debugger.address(arguments.where)
    if not 0 < arguments.size <= 4096:
        raise UsageError(f"cannot watch {arguments.size} bytes", "1 to 4096 bytes")
    emulation = debugger.selected_emulation
    memory = debugger.session.memory if emulation is None else emulation.emulator.memory
    memory.read(address, arguments.size)
    debugger.watches.append((address, arguments.size))
    return stops(debugger)
