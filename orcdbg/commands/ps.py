"""ps: the tasks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import parse_number
from orcdbg.kernel.tasks import Task

_COLUMNS = {"state": ("__state", "state"), "cpu": ("thread_info.cpu", "cpu"), "parent": ("real_parent",)}


@dataclass(frozen=True, slots=True)
class Tasks(Result):
    """A task list; `absent` are names of `Task` fields that this kernel lacks."""

    tasks: Sequence[Task]
    running: frozenset[int]
    problems: Sequence[str]
    absent: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="*", metavar="PID|TASK|COMMAND", help="only these tasks")
    parser.add_argument("-k", "--kernel", action="store_true", help="only kernel threads")
    parser.add_argument("-u", "--user", action="store_true", help="only user tasks")
    parser.add_argument("-A", "--active", action="store_true", help="only tasks on a CPU")
    parser.add_argument("-G", "--leaders", action="store_true", help="only thread group leaders")


def _named(task: Task, words: list[str]) -> bool:
    for word in words:
        if word == task.comm:
            return True
        if word[:1].isdigit() and parse_number(word) in (task.pid, task.address):
            return True
    return not words


@command(
    "ps",
    summary="list tasks",
    group="machine",
    arguments=_arguments,
    operands=("task",),
    examples=(("ps -A", "the tasks on a CPU"), ("ps -u", "user tasks only")),
)
def ps(debugger: Debugger, arguments: argparse.Namespace) -> Tasks:
    """Answers with the tasks that all the options and words fit."""
    session = debugger.session
    running = frozenset(session.unwinder.running)
    tests: list[tuple[bool, Callable[[Task], bool]]] = [
        (arguments.kernel, lambda task: task.is_kernel_thread),
        (arguments.user, lambda task: not task.is_kernel_thread),
        (arguments.active, lambda task: task.address in running),
        (arguments.leaders, lambda task: task.tgid in (None, task.pid)),
    ]
    wanted = [test for is_on, test in tests if is_on]
    tasks = [t for t in session.tasks if all(test(t) for test in wanted) and _named(t, arguments.which)]
    absent = [
        name for name, paths in _COLUMNS.items() if not any(session.types.has("task_struct", path) for path in paths)
    ]
    return Tasks(tasks, running, session.task_problems, absent)
