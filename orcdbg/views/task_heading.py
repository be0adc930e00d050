"""How is a task named above what is shown of it?"""

from __future__ import annotations

from orcdbg.kernel.tasks import Task
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, hexadecimal


def task_line(task: Task) -> Line:
    """The line that crash has above what it shows of a task."""
    cpu = "-" if task.cpu is None else task.cpu
    return line(
        ("PID: ", "label"),
        f"{task.pid:<8} ",
        ("TASK: ", "label"),
        f"{task.address:016x}  ",
        ("CPU: ", "label"),
        f"{cpu:<3}  ",
        ("COMMAND: ", "label"),
        (f'"{task.comm}"', "symbol"),
    )


def task_json(task: Task) -> Json:
    """The fields by which an answer names a task."""
    return {"task": hexadecimal(task.address), "pid": task.pid, "comm": task.comm, "cpu": task.cpu}
