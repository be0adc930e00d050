"""task: what a task's task_struct and thread_info hold."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.members import MemberValue, WantedMember, members_at, pointer_names, values_at
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import chosen_tasks
from orcdbg.kernel.tasks import MAX_TASKS, Task
from orcdbg.typed.types import CompoundType

_STRUCTURES = ("task_struct", "thread_info")


@dataclass(frozen=True, slots=True)
class TaskMembers:
    """Members of one task's structures."""

    task: Task
    values: tuple[MemberValue, ...]


@dataclass(frozen=True, slots=True)
class TaskStructures(Result):
    """Members of tasks' structures."""

    tasks: Sequence[TaskMembers]
    symbols: Mapping[int, str]
    in_hexadecimal: bool
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="*", metavar="PID|TASK", help="which tasks (default: the selected one)")
    parser.add_argument(
        "-R",
        "--members",
        metavar="MEMBER,...",
        help="only these members of task_struct or thread_info, dotted paths too",
    )
    parser.add_argument("-x", "--hexadecimal", action="store_true", help="numbers in hexadecimal")


def _wanted(debugger: Debugger, words: str | None) -> list[WantedMember]:
    """The members, each of the first of the two structures that has it; NotFound for one that neither has."""
    program = debugger.session.program
    structures = [program.type(f"struct {name}") for name in _STRUCTURES]
    compounds = [structure for structure in structures if isinstance(structure, CompoundType)]
    if words is None:
        return members_at(program, compounds[0], [])
    found = []
    for path in (word for word in words.split(",") if word):
        owner = next((structure for structure in compounds if structure.find(path) is not None), None)
        if owner is None:
            raise NotFound("member", f"task_struct.{path}")
        # Since 4.9 on x86 (15f4eae70d36) thread_info is a task's first member, and has its address.
        found += members_at(program, owner, [path])
    return found


def members_of(
    debugger: Debugger, tasks: Sequence[Task], words: str | None = None, in_hexadecimal: bool = False
) -> TaskStructures:
    """What these tasks' structures hold."""
    wanted = _wanted(debugger, words)
    budget = Budget(MAX_TASKS)
    values = values_at(debugger.session.program, wanted, [task.address for task in tasks], budget)
    found = [TaskMembers(task, of_task) for task, of_task in zip(tasks, values, strict=True)]
    symbols = pointer_names(debugger, [value for one in found for value in one.values])
    return TaskStructures(found, symbols, in_hexadecimal, budget.lines())


@command(
    "task",
    summary="show a task's task_struct",
    group="machine",
    arguments=_arguments,
    operands=("task",),
    examples=(
        ("task 94", "all of the task with pid 94"),
        ("task 94 -R pid,comm,se.vruntime", "some members"),
        ("task -R utime,stime", "of the selected task"),
    ),
)
def task(debugger: Debugger, arguments: argparse.Namespace) -> TaskStructures:
    """Answers with the members of tasks' structures."""
    return members_of(
        debugger,
        chosen_tasks(debugger, arguments.which),
        arguments.members,
        (arguments.hexadecimal or debugger.in_hexadecimal),
    )


def for_tasks(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> TaskStructures:
    """What `foreach task` answers."""
    return members_of(debugger, tasks, arguments.members, (arguments.hexadecimal or debugger.in_hexadecimal))
