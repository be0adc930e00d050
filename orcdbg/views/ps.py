"""How does a list of tasks look?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from orcdbg.commands.ps import Tasks
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Tasks, width: Width) -> Iterator[Line]:
    yield line(("      PID    TGID  CPU        TASK        ST  COMM", "label"))
    for task in result.tasks:
        mark = ">" if task.address in result.running else " "
        name = f"[{task.comm}]" if task.is_kernel_thread else task.comm
        tgid = "-" if task.tgid is None else task.tgid
        cpu = "-" if task.cpu is None else task.cpu
        yield line(
            (mark, "mark"),
            f"{task.pid:>8}{tgid:>8}{cpu:>5}  {task.address:016x}  {task.state or '-':>2}  ",
            (name, "symbol"),
        )
    for name in result.absent:
        yield line((f"column {name} is absent: this kernel's types have no such member", "note"))
    yield from problem_lines(result.problems)


def _json(result: Tasks) -> Json:
    def one(task: Any) -> Json:
        return {
            "task": hexadecimal(task.address),
            "pid": task.pid,
            "tgid": task.tgid,
            "cpu": task.cpu,
            "state": task.state,
            "running": task.address in result.running,
            "kernel_thread": task.is_kernel_thread,
            "parent": hexadecimal(task.parent),
            "comm": task.comm,
        }

    problems: Sequence[str] = list(result.problems)
    return {"tasks": [one(task) for task in result.tasks], "absent": list(result.absent), "problems": problems}


view(Tasks, text=_lines, json=_json)
