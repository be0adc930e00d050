"""How does a stop of a live guest look?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.live import Stopped
from orcdbg.gdb.stops import GuestStop
from orcdbg.views.display import displayed_json, displayed_lines
from orcdbg.views.page import Line, line
from orcdbg.views.view import Width, view


def _why(stop: GuestStop) -> str:
    """A word; for a signal that means nothing else, its number too."""
    return stop.reason.value if stop.signal is None else f"{stop.reason.value} {stop.signal}"


def stopped_lines(result: Stopped, width: Width) -> Iterator[Line]:
    """Why, where, and in which task."""
    stop, place = result.stop, result.location
    where = "no kernel text" if place is None else f"{place.symbol}+{stop.ip - place.start:#x}/{place.size:#x}"
    watched = "" if stop.watched is None else f" of {stop.watched:#x}"
    yield line(f"stopped: {_why(stop)}{watched} on CPU {stop.cpu} at ", (where, "symbol"), f"  {stop.ip:016x}")
    if result.task is not None:
        yield line(f'PID: {result.task.pid}  TASK: {result.task.address:016x}  COMMAND: "{result.task.comm}"')
    yield from displayed_lines(result.displays, width)


def stopped_json(result: Stopped) -> dict[str, Any]:
    """The object of the contract."""
    stop, place, task = result.stop, result.location, result.task
    return {
        "reason": _why(stop),
        "cpu": stop.cpu,
        "ip": f"{stop.ip:#x}",
        "symbol": None if place is None else place.symbol,
        "offset": None if place is None else stop.ip - place.start,
        "watched": None if stop.watched is None else f"{stop.watched:#x}",
        "task": None if task is None else f"{task.address:#x}",
        "pid": None if task is None else task.pid,
        "displays": displayed_json(result.displays),
    }


view(Stopped, text=stopped_lines, json=stopped_json)
