"""down: the callee's frame."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.frame import FrameDetail, add_count, move
from orcdbg.commands.registry import Effect, command


@command("down", summary="select the callee's frame", group="stacks", effect=Effect.NONE, arguments=add_count)
def down(debugger: Debugger, arguments: argparse.Namespace) -> FrameDetail:
    """Selects the frame so many places further in."""
    return move(debugger, -arguments.count)
