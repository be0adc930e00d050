"""rsi: back by instructions."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import checked_count, run
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import Steps, add_count


@command(
    "rsi",
    summary="step back by instructions",
    group="stepping",
    effect=Effect.NONE,
    arguments=add_count,
    aliases=("reverse-stepi",),
    examples=(("rsi 100", "the state a hundred instructions ago"),),
)
def rsi(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Answers with where the emulated CPU stood so many instructions ago."""
    emulation = debugger.selected_emulation
    if emulation is None:
        where = f" from frame {debugger.frame_index} of task {debugger.task.pid}" if debugger.emulation else ""
        raise OrcdbgError(f"nothing was stepped yet{where}", "`step` begins at the selected frame")
    arguments.trace = arguments.skip = False
    count = checked_count(arguments.count)
    return run(debugger, emulation, arguments, lambda emulation, _: emulation.emulator.back(count))
