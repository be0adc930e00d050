"""How does a wait queue look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.waitq import WaitQueue
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: WaitQueue, width: Width) -> Iterator[Line]:
    if result.waiters:
        rows = (
            (
                one.pid,
                address(one.task),
                "exclusive" if one.is_exclusive else "",
                address(one.entry),
                result.symbols.get(one.function, address(one.function)),
                one.comm,
            )
            for one in result.waiters
        )
        yield from columns((">PID", "TASK", "HOW", "ENTRY", "WOKEN BY", "COMMAND"), rows)
    elif not result.problems:
        yield line((f"Nothing waits on the queue at {result.address:016x}", "note"))
    yield from problem_lines(result.problems)


def _json(result: WaitQueue) -> Json:
    waiters = [
        record(one, ("entry", "function", "task"), symbol=result.symbols.get(one.function)) for one in result.waiters
    ]
    return {"address": hexadecimal(result.address), "waiters": waiters, "problems": list(result.problems)}


view(WaitQueue, text=_lines, json=_json)
