"""sig: the signals that a task handles, blocks, and has not taken yet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result, TextLines
from orcdbg.commands.task_choice import chosen_tasks, of_each, with_threads
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.signals import MAX_QUEUED, SIGNALS, Signals, signal_name, signals_of


@dataclass(frozen=True, slots=True)
class TaskSignals:
    """The signals of one task."""

    task: Task
    signals: Signals


@dataclass(frozen=True, slots=True)
class SignalTable(Result):
    """The signals of tasks."""

    tasks: Sequence[TaskSignals]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="*", metavar="PID|TASK", help="whose signals (default: the selected task's)")
    parser.add_argument("-g", "--threads", action="store_true", help="of all threads of the process, the leader first")
    parser.add_argument("-l", "--list", action="store_true", help="the names and numbers of all signals")
    parser.add_argument("-s", "--set", metavar="MASK", help="the signals of a mask, in hexadecimal, bit 0 for signal 1")


def signals_of_tasks(debugger: Debugger, tasks: Sequence[Task]) -> SignalTable:
    """The signals of these tasks."""
    budget = Budget(MAX_QUEUED)
    read = of_each(debugger, tasks, budget, "signals", lambda one: signals_of(one, budget))
    found = [TaskSignals(task, signals) for task, signals in read]
    return SignalTable(found, budget.lines())


def _names(mask: int) -> list[str]:
    return [signal_name(number) for number in range(1, SIGNALS + 1) if mask >> number - 1 & 1]


@command(
    "sig",
    summary="show a task's signals",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task",),
    examples=(
        ("sig 94", "what the task with pid 94 handles, blocks and has waiting"),
        ("sig -s 4002", "which signals a mask holds"),
    ),
)
def sig(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the signals of tasks, or explains signals."""
    if arguments.list:
        return TextLines([f"[{number}] {signal_name(number)}" for number in range(1, SIGNALS + 1)])
    if arguments.set is not None:
        try:
            mask = int(arguments.set, 16)
        except ValueError as error:
            raise UsageError(f"not a mask: {arguments.set}", "for example: sig -s 4002") from error
        return TextLines([" ".join(_names(mask)) or "(none)"])
    return for_tasks(debugger, chosen_tasks(debugger, arguments.which), arguments)


def for_tasks(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> SignalTable:
    """What `foreach sig` answers."""
    if arguments.threads:
        tasks = [thread for process in with_threads(debugger, tasks) for thread in process]
    return signals_of_tasks(debugger, tasks)
