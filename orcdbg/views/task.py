"""How do the members of a task's structures look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.task import TaskStructures
from orcdbg.views.member_values import value_lines, values_json
from orcdbg.views.page import Line, problem_lines
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, view


def _lines(result: TaskStructures, width: Width) -> Iterator[Line]:
    for number, one in enumerate(result.tasks):
        if number:
            yield []
        yield task_line(one.task)
        yield from value_lines(one.values, result.symbols, result.in_hexadecimal)
    yield from problem_lines(result.problems)


def _json(result: TaskStructures) -> Json:
    tasks = [task_json(one.task) | {"members": values_json(one.values)} for one in result.tasks]
    return {"tasks": tasks, "problems": list(result.problems)}


view(TaskStructures, text=_lines, json=_json)
