"""How does a list of tasks look?"""

from __future__ import annotations

import json
from collections.abc import Iterator

from orcdbg.commands.ps import LastRuns, TaskArguments, TaskLimits, TaskLines, Tasks, TaskSummary, TaskTimes
from orcdbg.kernel.tasks import Task
from orcdbg.views.columns import columns, duration
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, hexadecimal, view

# Tasks in a piece of an answer as JSON.
_PIECE = 1000


def _name(task: Task) -> str:
    return f"[{task.comm}]" if task.is_kernel_thread else task.comm


def _lines(result: Tasks, width: Width) -> Iterator[Line]:
    where = "KSTACKP" if result.stacks is not None else "  TASK"
    if result.with_header:
        yield line((f"      PID    TGID    PPID  CPU      {where:<8}      ST  %MEM      VSZ      RSS  COMM", "label"))
    for task in result.tasks:
        mark = ">" if task.address in result.running else " "
        tgid = "-" if task.tgid is None else task.tgid
        parent = result.parents.get(task.parent or 0, "-")
        cpu = "-" if task.cpu is None else task.cpu
        address = task.address if result.stacks is None else result.stacks.get(task.address)
        place = "-" if address is None else f"{address:016x}"
        yield line(
            (mark, "mark"),
            f"{task.pid:>8}{tgid:>8}{parent:>8}{cpu:>5}  {place:>16}  {task.state or '-':>2}  {_memory(result, task)}  ",
            (_name(task), "symbol"),
        )
    for name in result.absent:
        yield line((f"column {name} is absent: this kernel's types or memory do not have it", "note"))
    yield from problem_lines(result.problems)


def _memory(result: Tasks, task: Task) -> str:
    """Share of the machine's memory, and sizes in kB; 0 for a task without user memory, as crash has it."""
    size = result.memory.get(task.address)
    if size is None:
        return f"{'-':>4} {'-':>8} {'-':>8}"
    if size.resident is None:
        return f"{'-':>4} {size.mapped >> 10:>8} {'-':>8}"
    share = f"{100 * size.resident / result.total_memory:.1f}" if result.total_memory else "-"
    return f"{share:>4} {size.mapped >> 10:>8} {size.resident >> 10:>8}"


def _one_json(result: Tasks, task: Task) -> Json:
    size = result.memory.get(task.address)
    return {
        "task": hexadecimal(task.address),
        "pid": task.pid,
        "tgid": task.tgid,
        "ppid": result.parents.get(task.parent or 0),
        "cpu": task.cpu,
        "state": task.state,
        "running": task.address in result.running,
        "kernel_thread": task.is_kernel_thread,
        "parent": hexadecimal(task.parent),
        "comm": task.comm,
        "mapped": None if size is None else size.mapped,
        "resident": None if size is None else size.resident,
        "stack_pointer": hexadecimal(None if result.stacks is None else result.stacks.get(task.address)),
    }


def _json(result: Tasks) -> Json:
    tasks = [_one_json(result, task) for task in result.tasks]
    return {"tasks": tasks, "absent": list(result.absent), "problems": list(result.problems)}


def _json_pieces(result: Tasks) -> Iterator[str]:
    """A thousand tasks a piece: what 10^5 of them look like takes more memory than all else that the answer needs."""
    yield '{"tasks": ['
    for first in range(0, len(result.tasks), _PIECE):
        tasks = [_one_json(result, task) for task in result.tasks[first : first + _PIECE]]
        yield (", " if first else "") + json.dumps(tasks, ensure_ascii=True)[1:-1]
    others = {"absent": list(result.absent), "problems": list(result.problems)}
    yield "], " + json.dumps(others, ensure_ascii=True)[1:]


def _family_lines(result: TaskLines, width: Width) -> Iterator[Line]:
    for number, group in enumerate(result.groups):
        if number:
            yield []
        for depth, task in enumerate(group):
            indent = min(depth, 1) if result.are_children or result.are_threads else depth
            yield [*line(" " * indent), *task_line(task)]
        if result.are_children and len(group) == 1:
            yield line(("  (no children)", "note"))
    yield from problem_lines(result.problems)


def _family_json(result: TaskLines) -> Json:
    word = "children" if result.are_children else "threads" if result.are_threads else "ancestors"
    groups = []
    for group in result.groups:
        task, others = (group[-1], group[-2::-1]) if word == "ancestors" else (group[0], group[1:])
        groups.append(task_json(task) | {word: [task_json(other) for other in others]})
    return {"tasks": groups, "problems": list(result.problems)}


def _time_lines(result: TaskTimes, width: Width) -> Iterator[Line]:
    rows = (
        (
            task.pid,
            f"{task.address:016x}",
            None if result.now is None else duration(result.now - times.started),
            f"{times.started / 1e9:.3f}",
            f"{times.user / 1e9:.3f}",
            f"{times.system / 1e9:.3f}",
            _name(task),
        )
        for task, times in result.tasks
    )
    yield from columns((">PID", "TASK", ">RUN TIME", ">STARTED", ">UTIME", ">STIME", "COMM"), rows)
    yield from problem_lines(result.problems)


def _time_json(result: TaskTimes) -> Json:
    tasks = [
        task_json(task) | {"started": times.started, "user": times.user, "system": times.system}
        for task, times in result.tasks
    ]
    return {"tasks": tasks, "now": result.now, "problems": list(result.problems)}


def _last_run_lines(result: LastRuns, width: Width) -> Iterator[Line]:
    for task, arrival in result.tasks:
        now = result.now.get(-1 if task.cpu is None else task.cpu)
        shown = f"{arrival:>16}"
        if result.as_elapsed:
            shown = "-" if now is None else duration(now - arrival)
        yield [*line(f"[{shown}] [{task.state or '-'}]  "), *task_line(task)]
    yield from problem_lines(result.problems)


def _last_run_json(result: LastRuns) -> Json:
    def elapsed(task: Task, arrival: int) -> int | None:
        now = result.now.get(-1 if task.cpu is None else task.cpu)
        return None if now is None else now - arrival

    tasks = [
        task_json(task) | {"state": task.state, "last_run": arrival, "elapsed": elapsed(task, arrival)}
        for task, arrival in result.tasks
    ]
    return {"tasks": tasks, "problems": list(result.problems)}


def _argument_lines(result: TaskArguments, width: Width) -> Iterator[Line]:
    for number, (task, words, environment, why) in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(task)
        if why is not None:
            yield line((f"ARG: (no arguments: {why})", "note"))
            continue
        yield line(("ARG: ", "label"), " ".join(words))
        for index, word in enumerate(environment):
            yield line(("ENV: " if not index else "     ", "label"), word)
    yield from problem_lines(result.problems)


def _argument_json(result: TaskArguments) -> Json:
    tasks = [
        task_json(task) | {"arguments": list(words), "environment": list(environment), "why": why}
        for task, words, environment, why in result.tasks
    ]
    return {"tasks": tasks, "problems": list(result.problems)}


def _limit_lines(result: TaskLimits, width: Width) -> Iterator[Line]:
    for number, (task, limits) in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(task)
        rows = ((limit.name, _number(limit.current), _number(limit.maximum)) for limit in limits)
        yield from columns((">RLIMIT", ">CURRENT", ">MAXIMUM"), rows, symbol=0)
    yield from problem_lines(result.problems)


def _number(limit: int | None) -> str:
    return "(unlimited)" if limit is None else str(limit)


def _limit_json(result: TaskLimits) -> Json:
    tasks = [task_json(task) | {"limits": [record(limit) for limit in limits]} for task, limits in result.tasks]
    return {"tasks": tasks, "problems": list(result.problems)}


def _summary_lines(result: TaskSummary, width: Width) -> Iterator[Line]:
    yield from columns((">TASKS", "STATE"), ((count, state) for state, count in result.counts.items()))
    yield from problem_lines(result.problems)


def _summary_json(result: TaskSummary) -> Json:
    return {"states": dict(result.counts), "problems": list(result.problems)}


view(Tasks, text=_lines, json=_json, json_pieces=_json_pieces)
view(TaskLines, text=_family_lines, json=_family_json)
view(TaskTimes, text=_time_lines, json=_time_json)
view(LastRuns, text=_last_run_lines, json=_last_run_json)
view(TaskArguments, text=_argument_lines, json=_argument_json)
view(TaskLimits, text=_limit_lines, json=_limit_json)
view(TaskSummary, text=_summary_lines, json=_summary_json)
