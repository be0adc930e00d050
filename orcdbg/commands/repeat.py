"""repeat: a command again and again, while a live guest runs on in between."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.live import arrive, guest_of
from orcdbg.commands.registry import Effect, Registry, command
from orcdbg.commands.result import Result
from orcdbg.gdb.stops import StopReason

_LONGEST = 86_400
_LINE = re.compile(r"(?:-(\d{1,5}(?:\.\d{1,3})?)(?:,(\d{1,9}))?\s+)?(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Repeated(Result):
    """The answers of the rounds, each made when it is asked for; they end at a breakpoint's stop or with Ctrl-C."""

    rounds: Iterator[Result]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression",
        metavar="[-SECONDS[,TIMES]] COMMAND",
        help="how long the guest runs in between (default: 1 second), how often (default: until Ctrl-C), and the command",
    )


@command(
    "repeat",
    summary="run a command again and again while a live guest runs on in between",
    group="live",
    effect=Effect.MOVES_GUEST,
    arguments=_arguments,
    operands=("command",),
    takes_expression=True,
    examples=(
        ("repeat -1 runq", "each second, until Ctrl-C or a breakpoint stops the guest"),
        ("repeat -0.5,10 p jiffies", "ten times, half a second of the guest apart"),
    ),
)
def repeat(debugger: Debugger, arguments: argparse.Namespace) -> Repeated:
    """Answers with the command's answers, round by round."""
    match = _LINE.fullmatch(arguments.expression)
    assert match is not None  # any line that is not empty
    seconds, times, line = float(match[1] or 1), int(match[2] or 0), match[3]
    if debugger.guest is None:
        raise UsageError(
            "nothing changes in a snapshot, so every round would say the same",
            f"`{line}` alone; of a live guest (--remote) repeat shows each round",
        )
    if not 0 < seconds <= _LONGEST:
        raise UsageError(f"not a time to run for: {match[1]} seconds")
    registry: Registry = arguments.registry
    expression = registry.expression_line(line)
    found = expression.command if expression is not None else registry.find(line.split()[0])
    if found is None:
        raise registry.unknown(line.split()[0])
    if found.name == "repeat":
        raise UsageError("repeat does not repeat itself")
    return Repeated(_rounds(debugger, registry, line, seconds, times))


def _rounds(debugger: Debugger, registry: Registry, line: str, seconds: float, times: int) -> Iterator[Result]:
    number = 0
    while True:
        yield registry.run(debugger, line)
        number += 1
        if number == times:
            return
        guest = guest_of(debugger)
        debugger.forget()
        begun = time.monotonic()
        stop = guest.resume(seconds)
        stopped = arrive(debugger, stop)
        if stop.reason is not StopReason.INTERRUPT or time.monotonic() - begun < seconds:
            yield stopped  # a breakpoint, or Ctrl-C before the time was over
            return
