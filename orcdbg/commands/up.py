"""up: the caller's frame."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.frame import FrameDetail, add_count, move
from orcdbg.commands.registry import Effect, command


@command("up", summary="select the caller's frame", group="stacks", effect=Effect.NONE, arguments=add_count)
def up(debugger: Debugger, arguments: argparse.Namespace) -> FrameDetail:
    """Selects the frame so many places further out."""
    return move(debugger, arguments.count)
