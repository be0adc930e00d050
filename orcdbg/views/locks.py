"""How do locks look: who has them, and who waits?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.certainty import Certainty
from orcdbg.commands.locks import LockStates
from orcdbg.subsystems.waits.locks import ListedWaiter, Lock
from orcdbg.subsystems.waits.model import WaitKind
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, view
from orcdbg.views.wait_words import (
    certainty_text,
    evidence_command,
    evidence_text,
    holder_json,
    object_text,
    task_reference,
    task_text,
)


def _lines(result: LockStates, width: Width) -> Iterator[Line]:
    for number, lock in enumerate(result.locks):
        if number:
            yield []
        yield from _lock_lines(lock, result)
    if not result.locks:
        yield line((_none(result), "note"))
    if result.unexplained:
        yield line(("Blocked tasks whose wait is not known: ", "label"), str(result.unexplained))
    yield from problem_lines(result.problems)


def _none(result: LockStates) -> str:
    if result.task is not None:
        return "The task was not found waiting for a lock, nor keeping another waiting. Locks without waiters are not known."
    return "No task was found waiting for a lock. Locks without waiters, and those that CPUs spin for, are not in this."


def _lock_lines(lock: Lock, result: LockStates) -> Iterator[Line]:
    count = "" if lock.count is None else f"  {'done' if lock.kind is WaitKind.COMPLETION else 'count'} {lock.count}"
    yield line((object_text(lock.kind, lock.address, None, result.symbols), "header"), count)
    for holder in lock.holders:
        how = f" ({certainty_text(holder.certainty)})"
        command = f"  [{evidence_command(holder.evidence)}]"
        if holder.task is None:
            who = ("  nobody known: ", "label"), ""
        else:
            state = f" {result.tasks[holder.task].state}" if holder.task in result.tasks else ""
            name = f"{task_text(holder.task, result.tasks)} {address(holder.task)}{state}{how}: "
            perhaps = "perhaps " if holder.certainty is Certainty.HYPOTHESIS else ""
            who = (f"  {perhaps}held by ", "label"), name
        yield line(*who, evidence_text(holder.evidence), (command, "note"))
    if not lock.waiters:
        yield line(("  no waiters", "note"))
        return
    rows = [_row(waiter, result) for waiter in lock.waiters]
    yield from columns((">  PID", "TASK", "ST", "HOW", "WAITER", "COMMAND"), rows)


def _row(waiter: ListedWaiter, result: LockStates) -> tuple[object, ...]:
    task = None if waiter.task is None else result.tasks.get(waiter.task)
    return (
        None if task is None else task.pid,
        address(waiter.task),
        None if task is None else task.state,
        None if waiter.mode is None else waiter.mode.value,
        address(waiter.structure),
        "no task: the list is damaged" if task is None else task.comm,
    )


def _lock_json(lock: Lock, result: LockStates) -> Json:
    waiters = [
        record(waiter, ("structure",), task=task_reference(waiter.task, result.tasks)) for waiter in lock.waiters
    ]
    holders = [holder_json(holder, result.tasks) for holder in lock.holders]
    symbol = result.symbols.get(lock.address)
    return record(lock, ("address", "word"), symbol=symbol, holders=holders, waiters=waiters)


def _json(result: LockStates) -> Json:
    return {
        "locks": [_lock_json(lock, result) for lock in result.locks],
        "unexplained": result.unexplained,
        "problems": list(result.problems),
    }


view(LockStates, text=_lines, json=_json)
