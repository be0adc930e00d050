"""How do the settings, and what is selected, look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.set import Settings
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: Settings, width: Width) -> Iterator[Line]:
    task = result.task
    if task is not None:
        yield line(("     PID: ", "label"), str(task.pid))
        yield line((" COMMAND: ", "label"), f'"{task.comm}"')
        yield line(("    TASK: ", "label"), f"{task.address:016x}")
        yield line(("     CPU: ", "label"), "-" if result.cpu is None else str(result.cpu))
        yield line(("   STATE: ", "label"), task.state or "-")
        yield line(("   FRAME: ", "label"), str(result.frame))
    for name, value in sorted(result.values.items()):
        yield line((f"{name:>8}: ", "label"), value)


def _json(result: Settings) -> Json:
    task = result.task
    return {
        "settings": dict(result.values),
        "task": hexadecimal(task.address) if task else None,
        "pid": task.pid if task else None,
        "cpu": result.cpu,
        "frame": result.frame,
    }


view(Settings, text=_lines, json=_json)
