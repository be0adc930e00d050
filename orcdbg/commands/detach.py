"""detach: a live guest runs on, and orcdbg leaves."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.live import guest_of
from orcdbg.commands.quit import Quit
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result


@command(
    "detach",
    summary="let a live guest run on, and leave orcdbg",
    group="live",
    effect=Effect.MOVES_GUEST,
)
def detach(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Closes the connection, and answers no more."""
    guest_of(debugger).close()
    raise Quit
