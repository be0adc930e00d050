"""How do the members of a task's structures look?"""

from __future__ import annotations

import json
from collections.abc import Iterator

from orcdbg.commands.task import TaskMembers, TaskStructures
from orcdbg.views.member_values import value_lines, values_json
from orcdbg.views.page import Line, plain, problem_lines
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, view


def _task_lines(number: int, one: TaskMembers, in_hexadecimal: bool) -> Iterator[Line]:
    if number:
        yield []
    yield task_line(one.task)
    yield from value_lines(one.values, one.symbols, in_hexadecimal)


def _lines(result: TaskStructures, width: Width) -> Iterator[Line]:
    for number, one in enumerate(result.tasks):
        yield from _task_lines(number, one, result.in_hexadecimal)
    yield from problem_lines(result.problems)


def _pieces(result: TaskStructures, width: Width) -> Iterator[str]:
    """Task by task: 36 KB each."""
    for number, one in enumerate(result.tasks):
        yield plain(_task_lines(number, one, result.in_hexadecimal))
    yield plain(problem_lines(result.problems))


def _task_json(one: TaskMembers) -> Json:
    return task_json(one.task) | {"members": values_json(one.values)}


def _json(result: TaskStructures) -> Json:
    return {"tasks": [_task_json(one) for one in result.tasks], "problems": list(result.problems)}


def _json_pieces(result: TaskStructures) -> Iterator[str]:
    yield '{"tasks": ['
    for number, one in enumerate(result.tasks):
        yield (", " if number else "") + json.dumps(_task_json(one), ensure_ascii=True)
    yield f'], "problems": {json.dumps(list(result.problems), ensure_ascii=True)}}}'


view(TaskStructures, text=_lines, json=_json, text_pieces=_pieces, json_pieces=_json_pieces)
