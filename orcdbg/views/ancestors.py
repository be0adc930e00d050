"""How does a line of ancestors look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.ancestors import Ancestors
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Ancestors, width: Width) -> Iterator[Line]:
    yield line(("      PID        TASK        COMM", "label"))
    for task in result.tasks:
        name = f"[{task.comm}]" if task.is_kernel_thread else task.comm
        yield line(f"{task.pid:>9}  {task.address:016x}  ", (name, "symbol"))
    yield from problem_lines(result.problems)


def _json(result: Ancestors) -> Json:
    return {
        "ancestors": [{"task": hexadecimal(task.address), "pid": task.pid, "comm": task.comm} for task in result.tasks],
        "problems": list(result.problems),
    }


view(Ancestors, text=_lines, json=_json)
