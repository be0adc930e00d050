"""interrupt: a live guest that runs is stopped."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.live import Stopped, arrive, guest_of
from orcdbg.commands.registry import Effect, command


@command(
    "interrupt",
    summary="stop a running live guest",
    group="live",
    effect=Effect.MOVES_GUEST,
)
def interrupt(debugger: Debugger, arguments: argparse.Namespace) -> Stopped:
    """Answers with where the guest stopped."""
    return arrive(debugger, guest_of(debugger).interrupt())
