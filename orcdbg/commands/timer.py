"""timer: the timers of each CPU, by ticks and of high resolution."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import chosen_cpus
from orcdbg.subsystems.machine import monotonic_time, tick_length
from orcdbg.subsystems.timers import (
    MAX_TIMERS,
    HighResolutionTimer,
    WheelTimer,
    high_resolution_timers,
    jiffies,
    wheel_timers,
)


@dataclass(frozen=True, slots=True)
class Timers(Result):
    """Timers of timer wheels; `now` is the time in ticks, `tick` the nanoseconds of one, None where it is not known."""

    timers: Sequence[WheelTimer]
    now: int
    tick: int | None
    symbols: Mapping[int, str]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class HighResolutionTimers(Result):
    """hrtimers; `now` is the monotonic clock in nanoseconds, as it was last brought up to date; None where it is not known."""

    timers: Sequence[HighResolutionTimer]
    now: int | None
    symbols: Mapping[int, str]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-r", "--high-resolution", action="store_true", help="hrtimers instead of those of timer wheels"
    )
    parser.add_argument("-C", "--cpu", metavar="CPUS", help="only those of these CPUs, such as 0,2-4")


@command(
    "timer",
    summary="show timers and when they are due",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("timer -C 0", "the timer wheels of CPU 0"), ("timer -r", "all hrtimers")),
)
def timer(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the timers of one kind."""
    program = debugger.session.program
    cpus = set(chosen_cpus(debugger, arguments.cpu))
    budget = Budget(MAX_TIMERS)

    if arguments.high_resolution:
        fine = [one for one in high_resolution_timers(program, budget) if one.cpu in cpus]
        problems = budget.lines()
        now = None
        try:
            now = monotonic_time(program)
        except OrcdbgError as error:
            problems.append(f"the clock: {error}")
        return HighResolutionTimers(fine, now, names_of(debugger, (one.function for one in fine)), problems)

    coarse = [one for one in wheel_timers(program, budget) if one.cpu in cpus]
    tick = None
    try:
        tick = tick_length(program)
    except OrcdbgError as error:
        budget.note_error("the length of a tick", 0, error)
    symbols = names_of(debugger, (one.function for one in coarse))
    return Timers(coarse, jiffies(program), tick, symbols, budget.lines())
