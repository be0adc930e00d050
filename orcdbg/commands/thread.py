"""thread: gdb's way to select the task that a CPU runs."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.set import settings
from orcdbg.commands.task_choice import find_task, tasks_of_cpus


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("number", nargs="?", metavar="N", help="gdb's number of a CPU: one more than the kernel's")
    parser.add_argument("-t", "--task", metavar="PID|TASK", help="select a task")


@command(
    "thread",
    summary="select the task that a CPU runs, by gdb's number, or show which is selected",
    group="stacks",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("thread 1", "what CPU 0 runs, which is gdb's thread 1"), ("thread -t 94", "the task with pid 94")),
)
def thread(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with what is selected."""
    if arguments.task is not None:
        debugger.select(find_task(debugger, arguments.task))
    elif arguments.number is not None:
        if not arguments.number.isdecimal() or not int(arguments.number):
            raise UsageError(f"not a thread: {arguments.number}", "`thread 1` is CPU 0; `thread -t PID` takes a task")
        cpu = int(arguments.number) - 1
        if cpu >= debugger.session.linux.cpu_limit():
            raise NotFound("thread", arguments.number, f"thread N is CPU N-1; `thread -t {arguments.number}` is a task")
        debugger.select(tasks_of_cpus(debugger, [cpu])[0])
    return settings(debugger)
