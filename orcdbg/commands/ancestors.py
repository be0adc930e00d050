"""ancestors: a task, the task that made it, the one that made that, up to the first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.base.walks import Budget, Chain
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import find_task
from orcdbg.kernel.tasks import Task, read_task

MAX_ANCESTORS = 10_000  # a false snapshot may hold a line of millions


@dataclass(frozen=True, slots=True)
class Ancestors(Result):
    """A task and its ancestors, the task first."""

    tasks: Sequence[Task]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", metavar="PID|TASK", help="whose ancestors (default: the selected task's)")


@command(
    "ancestors",
    summary="show the parents of a task, up to the first task",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task",),
    examples=(("ancestors 94", "the task with pid 94, its parent, and so on"),),
)
def ancestors(debugger: Debugger, arguments: argparse.Namespace) -> Ancestors:
    """Answers with the chain of real parents, as far as it can be read."""
    linux = debugger.session.linux
    tasks = [find_task(debugger, arguments.task) if arguments.task else debugger.task]
    budget = Budget(MAX_ANCESTORS)

    def parent_of(address: int) -> int:
        parent = tasks[-1].parent
        # The first task, swapper/0, is its own parent.
        return 0 if parent is None or parent == address else parent

    for address in Chain(tasks[0].address, parent_of, budget, "the line of parents"):
        if address == tasks[0].address:
            continue
        try:
            tasks.append(read_task(linux, address))
        except MemoryFault as error:
            budget.note_error("a parent", address, error)
            break
    return Ancestors(tasks, budget.lines())
