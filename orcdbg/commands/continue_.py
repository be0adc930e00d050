"""continue: a live guest runs until something stops it."""

from __future__ import annotations

import argparse

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.live import arrive, guest_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result, TextLines


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:
        raise ValueError(text)
    return value


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="stop it after this time")
    parser.add_argument(
        "-b", "--background", action="store_true", help="do not wait for a stop; `interrupt` forces one"
    )


@command(
    "continue",
    summary="let a live guest run until something stops it",
    group="live",
    effect=Effect.MOVES_GUEST,
    arguments=_arguments,
    aliases=("c",),
    examples=(
        ("continue", "until a breakpoint or Ctrl-C"),
        ("continue --for 0.5", "for half a second"),
        ("continue -b", "and come back to the prompt at once"),
    ),
)
def resume(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers when the guest has stopped, or with `-b` at once."""
    guest = guest_of(debugger)
    debugger.forget()
    if arguments.background:
        guest.start()
        return TextLines(["the guest runs; `interrupt` stops it"])
    return arrive(debugger, guest.resume(arguments.seconds))
