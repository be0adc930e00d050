"""set, help, quit: the selection, the settings, and the way out."""

from __future__ import annotations

import argparse

from orcdbg.base.errors import UsageError
from orcdbg.commands.backtrace import find_task, tasks_on
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command, Registry
from orcdbg.commands.results import Nothing, Result, Settings, Text


class Quit(Exception):
    """The user wants to leave."""


def _set_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="PID|TASK|NAME VALUE", help="a task to select, or a setting")
    parser.add_argument("-c", "--cpu", help="select the task that this CPU runs")
    parser.add_argument("-p", "--panic", action="store_true", help="select the task that panicked")


def _settings(debugger: Debugger) -> Settings:
    task = debugger.task
    cpu, _ = debugger.session.unwinder.running.get(task.address, (task.cpu, None))
    return Settings(dict(debugger.settings), task, cpu, debugger.frame_index)


def _set(debugger: Debugger, arguments: argparse.Namespace) -> Result:
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
    elif len(words) == 1 and words[0] not in debugger.settings:
        debugger.select(find_task(debugger, words[0]))
    elif len(words) == 2:
        debugger.set(*words)
        return Nothing()
    elif len(words) > 2:
        raise UsageError("set takes a task, or a setting and its value")
    return _settings(debugger)


def _quit(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    raise Quit


def _help_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", nargs="?", help="the command to explain; all of them in short without")


def control_commands(registry: Registry) -> tuple[Command, ...]:
    """These commands, `help` speaking of what `registry` holds when it is asked."""

    def run_help(debugger: Debugger, arguments: argparse.Namespace) -> Result:
        if arguments.command is None:
            return Text(overview(registry))
        command = registry.find(arguments.command)
        if command is None:
            raise UsageError(f"no such command: {arguments.command}", "`help` lists the commands")
        return Text(command.help_lines())

    return (
        Command(
            "set",
            "select a task, or change a setting",
            "session",
            _set,
            _set_arguments,
            examples=(("set 94", "work on the task with pid 94"), ("set -c 1", "on the one that CPU 1 runs")),
            operands=("task", "setting"),
        ),
        Command(
            "help", "explain the commands", "session", run_help, _help_arguments, ("?", "man"), operands=("command",)
        ),
        Command("quit", "leave", "session", _quit, aliases=("q", "exit")),
    )


def overview(registry: Registry) -> list[str]:
    """The commands in groups, a line each, with one example each."""
    groups: dict[str, list[Command]] = {}
    for command in registry.commands.values():
        groups.setdefault(command.group, []).append(command)
    width = max(len(name) for name in registry.commands)
    lines: list[str] = []
    for group, commands in groups.items():
        lines.append(group.upper())
        for command in commands:
            lines.append(f"  {command.name:<{width}}  {command.summary}")
            lines += [f"  {'':<{width}}    {line}" for line, _ in command.examples[:1]]
        lines.append("")
    return [*lines, "`help COMMAND` shows a command's words and examples. `cmd | grep x`, `cmd > file` work too."]
