"""How do run queues look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.runq import RunQueues
from orcdbg.subsystems.run_queues import Queued, RunQueue
from orcdbg.views.columns import address, columns, duration
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: RunQueues, width: Width) -> Iterator[Line]:
    latest = max((queue.clock for queue in result.queues), default=0)
    for number, queue in enumerate(result.queues):
        if number:
            yield []
        clock = f"  clock {queue.clock}" if result.with_arrivals else ""
        lag = f"  behind by {duration(latest - queue.clock)}" if result.with_lag else ""
        yield line((f"CPU {queue.cpu} ", "header"), ("RUNQUEUE: ", "label"), address(queue.address), clock, lag)
        yield _current(queue, result)
        if not queue.queued:
            yield line(("  [no tasks queued]", "note"))
            continue
        yield from _queued(queue.queued, result)
    yield from problem_lines(result.problems)


def _current(queue: RunQueue, result: RunQueues) -> Line:
    if queue.current is None:
        return line(("  CURRENT: ", "label"), "-")
    task, pid, comm = queue.current
    text = f"PID: {pid:<6}  TASK: {task:016x}  COMMAND: "
    time = ""
    if result.with_times and queue.current_start is not None:
        time = f"  {duration(queue.clock - queue.current_start)}"
    if result.with_arrivals:
        time += f"  last run {'-' if queue.current_arrival is None else queue.current_arrival}"
    return line(("  CURRENT: ", "label"), text, (f'"{comm}"', "symbol"), time)


def _queued(queued: list[Queued], result: RunQueues) -> Iterator[Line]:
    head: tuple[str, ...] = ("CLASS", ">PRIO", ">VRUNTIME", ">DEADLINE", ">PID", "TASK")
    head += ("TASK_GROUP",) if result.with_groups else ()
    head += (">LAST RUN",) if result.with_arrivals else ()
    rows = (
        (
            one.scheduling_class.value,
            one.priority,
            one.virtual_runtime,
            one.deadline,
            one.pid,
            address(one.task),
            *((address(one.group),) if result.with_groups else ()),
            *((one.arrival,) if result.with_arrivals else ()),
            one.comm + (" (delayed: asleep)" if one.is_delayed else ""),
        )
        for one in queued
    )
    yield from columns((*head, "COMMAND"), rows)


def _queue_json(queue: RunQueue) -> Json:
    current = None
    if queue.current is not None:
        task, pid, comm = queue.current
        current = {"task": hexadecimal(task), "pid": pid, "comm": comm}
    queued = [record(one, ("task", "group")) for one in queue.queued]
    return record(queue, ("address",), current=current, queued=queued)


def _json(result: RunQueues) -> Json:
    return {"queues": [_queue_json(queue) for queue in result.queues], "problems": list(result.problems)}


view(RunQueues, text=_lines, json=_json)
