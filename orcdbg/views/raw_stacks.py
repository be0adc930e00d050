"""How do the words of a whole stack look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.raw_stacks import RawStacks
from orcdbg.views.page import Line, problem_lines
from orcdbg.views.rd import word_lines, words_json
from orcdbg.views.task_heading import task_json, task_line
from orcdbg.views.view import Json, Width, view


def _lines(result: RawStacks, width: Width) -> Iterator[Line]:
    for number, stack in enumerate(result.stacks):
        if number:
            yield []
        yield task_line(stack.task)
        for run in stack.runs:
            yield from word_lines(run, width)
    yield from problem_lines(result.problems)


def _json(result: RawStacks) -> Json:
    stacks = [
        task_json(stack.task) | {"words": [word for run in stack.runs for word in words_json(run)["words"]]}
        for stack in result.stacks
    ]
    return {"stacks": stacks, "problems": list(result.problems)}


view(RawStacks, text=_lines, json=_json)
