"""set: the selected task, and the settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.known_words import CRASH_SETTINGS
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Nothing, Result
from orcdbg.commands.task_choice import find_task, tasks_on
from orcdbg.kernel.tasks import Task

_RADIXES = {"hex": "16", "dec": "10"}  # crash's short forms


@dataclass(frozen=True, slots=True)
class Settings(Result):
    """The settings and the selected task."""

    values: Mapping[str, str]
    task: Task | None
    cpu: int | None
    frame: int


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="PID|TASK|NAME VALUE", help="a task to select, or a setting")
    parser.add_argument("-c", "--cpu", help="select the task that this CPU runs")
    parser.add_argument("-p", "--panic", action="store_true", help="select the task that panicked")


def settings(debugger: Debugger) -> Settings:
    """The settings, and what is selected."""
    task = debugger.task
    cpu, _ = debugger.session.unwinder.running.get(task.address, (task.cpu, None))
    return Settings(dict(debugger.settings), task, cpu, debugger.frame_index)


@command(
    "set",
    summary="select a task, or change a setting",
    group="session",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task", "setting"),
    examples=(
        ("set 94", "work on the task with pid 94"),
        ("set -c 1", "on the one that CPU 1 runs"),
        ("set radix 16", "numbers in hexadecimal"),
    ),
)
def set_(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Changes what the words name, and answers with the settings; with nothing after a change of one."""
    words = arguments.words
    if arguments.cpu is not None:
        chosen = tasks_on(debugger, arguments.cpu)
        if len(chosen) != 1:
            raise UsageError(f"not one CPU with a task: {arguments.cpu}")
        debugger.select(chosen[0])
    elif arguments.panic:
        if debugger.panic_cpu is None:
            raise UsageError("no CPU panicked in this snapshot")
        debugger.select(tasks_on(debugger, str(debugger.panic_cpu))[0])
    elif len(words) == 1 and words[0] in _RADIXES:
        debugger.set("radix", _RADIXES[words[0]])
        return Nothing()
    elif len(words) == 1 and words[0] in CRASH_SETTINGS:
        raise UsageError(f"no such setting: {words[0]}", CRASH_SETTINGS[words[0]])
    elif len(words) == 1 and words[0] not in debugger.settings:
        debugger.select(find_task(debugger, words[0]))
    elif len(words) == 2:
        debugger.set(*words)
        return Nothing()
    elif len(words) > 2:
        raise UsageError("set takes a task, or a setting and its value")
    return settings(debugger)
