"""undisplay: what was displayed is no longer."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import NotFound
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.display import Displays
from orcdbg.commands.registry import Effect, command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", nargs="*", type=int, metavar="N", help="which displays (default: all)")


@command(
    "undisplay",
    summary="end displays",
    group="stepping",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("undisplay 1", "by their numbers; without one, all"),),
)
def undisplay(debugger: Debugger, arguments: argparse.Namespace) -> Displays:
    """Answers with the displays that are left."""
    chosen = arguments.numbers or list(debugger.displays)
    for number in chosen:
        if number not in debugger.displays:
            raise NotFound("display", str(number), "`info display` lists them")
    for number in chosen:
        debugger.displays.pop(number, None)
    return Displays(list(debugger.displays.values()))
