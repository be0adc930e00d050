"""finish: instructions until the function returns."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import current, run
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.steps import Steps, add_run_options, moves_guest
from orcdbg.unwind.frame import FrameKind


@command(
    "finish",
    summary="run until the current function returns",
    group="stepping",
    effect=Effect.NONE,
    arguments=add_run_options,
    aliases=("fin",),
)
def finish(debugger: Debugger, arguments: argparse.Namespace) -> Steps:
    """Answers with what was run and where the CPU stands."""
    if moves_guest(debugger, arguments):
        from orcdbg.commands import live_steps

        return live_steps.finish(debugger, arguments)

    emulation = current(debugger)
    frames = emulation.trace().frames
    if len(frames) < 2 or frames[0].cfa is None or frames[1].kind is not FrameKind.CALL:
        raise OrcdbgError("where this function returns to is not known", "`context` shows what is known of its callers")
    caller, cfa = frames[1].ip, frames[0].cfa
    return run(debugger, emulation, arguments, lambda _, motions: motions.finish(caller, cfa))
