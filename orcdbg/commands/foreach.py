"""foreach: the stacks of all tasks, or of those that words select."""

from __future__ import annotations

import argparse
from dataclasses import replace

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.commands.stacks import add_arguments, in_chosen_form, stacks_result
from orcdbg.kernel.tasks import Task
from orcdbg.unwind.unwinder import MAX_SCANNED


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="+",
        metavar="WORD",
        help="which tasks: user, kernel, a state (RU, IN, UN ...), a name or a pid; the last word is `bt`",
    )
    add_arguments(parser)


def _matches(task: Task, word: str) -> bool:
    if word in ("user", "kernel"):
        return task.is_kernel_thread == (word == "kernel")
    return word in (task.state, task.comm, str(task.pid))


@command(
    "foreach",
    summary="show the stacks of many tasks",
    group="stacks",
    arguments=_arguments,
    examples=(
        ("foreach bt", "every task"),
        ("foreach UN bt", "tasks in uninterruptible sleep"),
        ("foreach bt --group", "equal stacks once, those of most tasks first"),
        ("foreach bt --has do_nanosleep", "the tasks that sleep in a function"),
    ),
)
def foreach(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the stacks of the tasks that all words before the last one fit."""
    *filters, what = arguments.what
    if what != "bt":
        raise UsageError(f"foreach runs bt only, not {what}", "for example: foreach UN bt")
    tasks = debugger.session.tasks
    for word in filters:
        tasks = [task for task in tasks if _matches(task, word)]
    if not tasks:
        raise NotFound("task", " ".join(filters), "`ps` lists them")
    budget = Budget(MAX_SCANNED)
    traces = debugger.session.unwinder.traces(tasks, budget)
    problems = [*debugger.session.task_problems, *debugger.session.names.problems, *budget.lines()]
    result = stacks_result(debugger, traces)
    return in_chosen_form(replace(result, problems=problems), arguments)
