"""How does it look who waits for whom?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orcdbg.base.certainty import Certainty
from orcdbg.commands.waits import Waits
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.waits.model import Cycle, Edge, WaitKind
from orcdbg.views.columns import address, columns, duration
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, view
from orcdbg.views.wait_words import (
    certainty_text,
    edge_json,
    evidence_command,
    evidence_text,
    object_text,
    task_reference,
    task_text,
)

_Group = tuple[WaitKind, int | None, int | None]


def _lines(result: Waits, width: Width) -> Iterator[Line]:
    for number, cycle in enumerate(result.cycles, 1):
        yield from _cycle_lines(number, cycle, result)
    for group in _groups(result.edges):
        yield from _group_lines(group, result)
        yield []
    if result.unexplained:
        names = ", ".join(task_text(task, result.tasks) for task in result.unexplained)
        yield line(("What these wait for is not known: ", "label"), names)
    yield from _end_lines(result)
    yield from problem_lines(result.problems)


def _end_lines(result: Waits) -> Iterator[Line]:
    if result.is_whole and not result.edges and not result.unexplained:
        yield line(("No task is in uninterruptible sleep, and none was found waiting for a lock.", "note"))
    if not result.cycles:
        # What spins or runs is on no list, and holders are not all known: that there is no deadlock does not follow.
        yield line(
            ("No cycle was found. Tasks that run or spin, and holders that nothing records, are not in this.", "note")
        )


def _cycle_lines(number: int, cycle: Cycle, result: Waits) -> Iterator[Line]:
    word = "Deadlock" if cycle.certainty is not Certainty.HYPOTHESIS else "Perhaps a deadlock"
    count = f"{len(cycle.edges)} tasks wait for each other" if len(cycle.edges) > 1 else "a task waits for itself"
    yield line((f"{word} {number}", "header"), f" ({certainty_text(cycle.certainty)}): {count}")
    for edge in cycle.edges:
        what = object_text(edge.kind, edge.object, edge.bit, result.symbols)
        holder = task_text(edge.holder or 0, result.tasks)
        verb = "is up to" if edge.kind in _ENDED_BY else _held(edge)
        yield line("  ", (task_text(edge.waiter, result.tasks), "symbol"), f" waits for {what}, which {verb} {holder}")
    yield []


# Nobody holds these: the other task is to end the wait.
_ENDED_BY = (WaitKind.KTHREAD_STOP, WaitKind.VFORK, WaitKind.FLUSH_WORK, WaitKind.COMPLETION, WaitKind.RCU)


def _held(edge: Edge) -> str:
    return "is perhaps held by" if edge.certainty is Certainty.HYPOTHESIS else "is held by"


def _groups(edges: Sequence[Edge]) -> list[list[Edge]]:
    """The edges by what they wait for, what most tasks wait for first."""
    groups: dict[_Group | tuple[int], list[Edge]] = {}
    for edge in edges:
        key: _Group | tuple[int] = (edge.waiter,) if edge.object is None else (edge.kind, edge.object, edge.bit)
        groups.setdefault(key, []).append(edge)
    return sorted(groups.values(), key=lambda group: -len({edge.waiter for edge in group}))


def _group_lines(group: Sequence[Edge], result: Waits) -> Iterator[Line]:
    first = group[0]
    yield line((object_text(first.kind, first.object, first.bit, result.symbols), "header"))
    holders = {edge.holder: edge for edge in reversed(group)}
    for holder, edge in sorted(holders.items(), key=lambda item: item[0] or 0):
        yield _holder_line(holder, edge, result.tasks)
        if holder is not None:
            yield from _chain_line(holder, result)

    waiters = {edge.waiter: edge for edge in group}
    rows = (_row(edge, result.tasks) for edge in sorted(waiters.values(), key=lambda edge: -(edge.age or 0)))
    yield from columns((">  PID", "TASK", "ST", ">ASLEEP", "HOW", "SURE", "IN", "COMMAND"), rows)
    if result.with_evidence:
        for edge in group:
            yield from _evidence_lines(edge, result.tasks)


def _holder_line(holder: int | None, edge: Edge, tasks: Mapping[int, Task]) -> Line:
    if holder is None:
        last = edge.evidence[-1]
        return (
            line(("  nobody known to have it: ", "label"), evidence_text(last))
            if edge.kind.is_lock
            else line(("  who is to end this is not recorded", "note"))
        )
    label = "  to be ended by " if edge.kind in _ENDED_BY else f"  {_held(edge).removeprefix('is ')} "
    how = f" ({certainty_text(edge.certainty)})"
    state = "" if holder not in tasks else f" {tasks[holder].state}"
    reason = f": {evidence_text(edge.evidence[-1])}" if edge.certainty is Certainty.HYPOTHESIS else ""
    return line((label, "label"), (task_text(holder, tasks), "symbol"), f" {address(holder)}{state}{how}{reason}")


def _chain_line(holder: int, result: Waits) -> Iterator[Line]:
    """Whom the holder waits for in turn."""
    chain = next((chain for chain in result.chains.values() if any(edge.waiter == holder for edge in chain)), ())
    behind = [edge for edge in chain if edge.waiter == holder or _is_behind(edge, holder, chain)]
    if not behind:
        return
    steps = []
    for edge in behind:
        to = "nobody known" if edge.holder is None else task_text(edge.holder, result.tasks)
        steps.append(f"for {edge.kind.value}, {to}")
    yield line(("  which waits ", "label"), ", which waits ".join(steps))


def _is_behind(edge: Edge, holder: int, chain: Sequence[Edge]) -> bool:
    order = [each.waiter for each in chain]
    return order.index(edge.waiter) > order.index(holder)


def _row(edge: Edge, tasks: Mapping[int, Task]) -> tuple[object, ...]:
    task = tasks.get(edge.waiter)
    return (
        None if task is None else task.pid,
        address(edge.waiter),
        None if task is None else task.state,
        None if edge.age is None else duration(edge.age),
        None if edge.mode is None else edge.mode.value,
        certainty_text(edge.object_certainty),
        edge.function,
        None if task is None else task.comm,
    )


def _evidence_lines(edge: Edge, tasks: Mapping[int, Task]) -> Iterator[Line]:
    for evidence in edge.evidence:
        yield line(
            ("  ", ""),
            (f"{task_text(edge.waiter, tasks)}: ", "label"),
            evidence_text(evidence),
            (f"  [{evidence_command(evidence)}]", "note"),
        )


def _cycle_json(cycle: Cycle, result: Waits) -> Json:
    return {
        "certainty": cycle.certainty.value,
        "edges": [edge_json(edge, result.tasks, result.symbols) for edge in cycle.edges],
    }


def _json(result: Waits) -> Json:
    return {
        "edges": [edge_json(edge, result.tasks, result.symbols) for edge in result.edges],
        "cycles": [_cycle_json(cycle, result) for cycle in result.cycles],
        "unexplained": [task_reference(task, result.tasks) for task in result.unexplained],
        "problems": list(result.problems),
    }


view(Waits, text=_lines, json=_json)
