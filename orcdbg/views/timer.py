"""How do timers look?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from orcdbg.commands.timer import HighResolutionTimers, Timers
from orcdbg.subsystems.timers import until
from orcdbg.views.columns import address, columns, duration
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, view


def _lines(result: Timers, width: Width) -> Iterator[Line]:
    yield line(("JIFFIES: ", "label"), str(result.now))
    for cpu, group in groupby(result.timers, key=lambda timer: timer.cpu):
        yield line((f"TIMERS OF CPU {cpu}:", "header"))
        rows = (
            (
                timer.expires,
                until(timer, result.now),
                None if result.tick is None else duration(until(timer, result.now) * result.tick),
                timer.base,
                address(timer.address),
                result.symbols.get(timer.function, address(timer.function)),
            )
            for timer in group
        )
        yield from columns((">EXPIRES", ">TTE", ">IN", ">BASE", "TIMER_LIST", "FUNCTION"), rows)
    yield from problem_lines(result.problems)


def _json(result: Timers) -> Json:
    timers = [
        record(
            timer, ("address", "function"), symbol=result.symbols.get(timer.function), ticks=until(timer, result.now)
        )
        for timer in result.timers
    ]
    return {"jiffies": result.now, "tick": result.tick, "timers": timers, "problems": list(result.problems)}


def _fine_lines(result: HighResolutionTimers, width: Width) -> Iterator[Line]:
    yield line(("MONOTONIC: ", "label"), "-" if result.now is None else str(result.now))
    for (cpu, clock, is_soft), group in groupby(
        result.timers, key=lambda timer: (timer.cpu, timer.clock, timer.is_soft)
    ):
        yield line((f"HRTIMERS OF CPU {cpu}, CLOCK {clock}{', IN SOFTIRQ' if is_soft else ''}:", "header"))
        rows = (
            (
                timer.soft_expires,
                timer.expires,
                address(timer.address),
                result.symbols.get(timer.function, address(timer.function)),
            )
            for timer in group
        )
        yield from columns((">SOFTEXPIRES", ">EXPIRES", "HRTIMER", "FUNCTION"), rows)
    yield from problem_lines(result.problems)


def _fine_json(result: HighResolutionTimers) -> Json:
    timers = [
        record(timer, ("address", "function"), symbol=result.symbols.get(timer.function)) for timer in result.timers
    ]
    return {"now": result.now, "timers": timers, "problems": list(result.problems)}


view(Timers, text=_lines, json=_json)
view(HighResolutionTimers, text=_fine_lines, json=_fine_json)
