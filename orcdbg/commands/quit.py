"""quit: the way out."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result


class Quit(Exception):
    """The user wants to leave."""


@command("quit", summary="leave orcdbg", group="session", effect=Effect.ENDS_SESSION, aliases=("q", "exit"))
def quit(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers no more."""
    raise Quit
