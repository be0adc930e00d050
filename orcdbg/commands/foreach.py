"""foreach: one command for all tasks, or for those that words select."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from orcdbg.base.errors import UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command, CommandParser, Effect, command
from orcdbg.commands.result import NoneFits, Result, own_result
from orcdbg.commands.stacks import add_arguments, in_chosen_form, stacks_result
from orcdbg.commands.task_choice import named_tasks
from orcdbg.kernel.tasks import Task
from orcdbg.unwind.unwinder import MAX_SCANNED

# What a command does for tasks, from what its own parser made of its words. Loaded when it is asked for.
ForTasks = Callable[[Debugger, Sequence[Task], argparse.Namespace], Result]
_WORDS = ("bt", "files", "net", "ps", "sig", "task", "vm", "vtop")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs=argparse.REMAINDER,
        metavar="WORD",
        help="which tasks: user, kernel, gleader, active, a state (RU, IN, UN ...), names, regular expressions of names, pids "
        "or addresses; then one of "
        f"{', '.join(_WORDS)}, and what that takes",
    )
    add_arguments(parser)


def _for_tasks(word: str) -> ForTasks:
    module = importlib.import_module(f"orcdbg.commands.{word}")
    found: ForTasks = module.for_tasks
    return found


def _bt(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> Result:
    budget = Budget(MAX_SCANNED)
    traces = debugger.session.unwinder.traces(tasks, budget)
    problems = [*debugger.session.task_problems, *debugger.session.names.problems, *budget.lines()]
    result = stacks_result(debugger, traces)
    if arguments.reference is not None:
        from orcdbg.commands.stack_words import with_reference  # only where it is asked for

        result = with_reference(debugger, result, arguments.reference)
    return in_chosen_form(debugger, replace(result, problems=problems), arguments)


def _selected(debugger: Debugger, words: Sequence[str]) -> list[Task]:
    """The tasks that all kinds of words fit; of names, pids and addresses one is enough.

    Raises:
        NotFound: a name, a pid or an address is of no task.
    """
    running = debugger.session.unwinder.running if "active" in words else {}
    states = {task.state for task in debugger.session.tasks} | {
        "RU",
        "IN",
        "UN",
        "ZO",
        "ST",
        "TR",
        "ID",
        "DE",
        "NE",
        "PA",
        "WA",
    }
    tests: dict[str, Callable[[Task], bool]] = {
        "user": lambda task: not task.is_kernel_thread,
        "kernel": lambda task: task.is_kernel_thread,
        "gleader": lambda task: task.tgid in (None, task.pid),
        "active": lambda task: task.address in running,
    }
    wanted_states = {word for word in words if word in states}
    named = [word for word in words if word not in tests and word not in wanted_states]

    def fits(task: Task) -> bool:
        return all(tests[word](task) for word in words if word in tests) and (
            not wanted_states or task.state in wanted_states
        )

    return [task for task in named_tasks(debugger, named) if fits(task)]


def _taken_apart(arguments: argparse.Namespace) -> tuple[Sequence[str], str, Sequence[str]]:
    """The words that say which tasks, the command's word, and what that takes; UsageError where there is none."""
    words = arguments.what
    number = next((number for number, word in enumerate(words) if word in _WORDS), None)
    if number is None:
        given = words[-1] if words else "nothing"
        raise UsageError(f"foreach runs {', '.join(_WORDS)}, not {given}", "for example: foreach UN bt")
    return words[:number], words[number], words[number + 1 :]


def _effect(arguments: argparse.Namespace) -> Effect | None:
    """That of the command which it runs."""
    _, word, rest = _taken_apart(arguments)
    run: Command = arguments.registry.find(word)
    return run.effect_of(run.parser().parse_args(rest))


@command(
    "foreach",
    summary="run a command for many tasks: bt, task, files, vm, vtop, net, sig, ps",
    group="stacks",
    effect=_effect,
    arguments=_arguments,
    examples=(
        ("foreach bt", "every task"),
        ("foreach UN bt", "tasks in uninterruptible sleep"),
        ("foreach bt --group", "equal stacks once, those of most tasks first"),
        ("foreach UN bt --folded", "the same for flamegraph.pl"),
        ("foreach bt -R do_nanosleep", "the tasks that sleep in a function"),
        ("foreach 'kworker.*' bt", "the tasks whose names a regular expression fits"),
        ("foreach user files -R /var/log", "the user tasks that have a file below /var/log open"),
    ),
)
def foreach(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers as the command does, for the tasks that the words before it fit."""
    words, word, rest = _taken_apart(arguments)
    tasks = _selected(debugger, words)
    if word == "bt":
        parser = CommandParser(prog="foreach", allow_abbrev=False)
        add_arguments(parser)
        answer = _bt(debugger, tasks, parser.parse_args(rest, arguments))
    else:
        run = arguments.registry.find(word)
        answer = _for_tasks(word)(debugger, tasks, run.parser().parse_args(rest))
    return answer if tasks else NoneFits("tasks", own_result(answer), debugger.session.task_problems)
