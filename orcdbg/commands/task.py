"""task: what a task's task_struct and thread_info hold."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.members import MemberValue, WantedMember, members_at, pointer_names, values_at
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import chosen_tasks
from orcdbg.kernel.tasks import MAX_TASKS, Task
from orcdbg.typed.types import CompoundType

_STRUCTURES = ("task_struct", "thread_info")


# Tasks whose structures are in memory at once: some 100 KB each, of 20,000 tasks 2 GB.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class TaskMembers:
    """Members of one task's structures; `symbols` names the pointers among them."""

    task: Task
    values: tuple[MemberValue, ...]
    symbols: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class TaskStructures(Result):
    """Members of tasks' structures, which are read as they are shown; what could not be read is known behind the last."""

    tasks: Sequence[TaskMembers]
    in_hexadecimal: bool
    problems: Sequence[str]


class _StructuresRead(Sequence[TaskMembers]):
    """The structures of tasks, read by batches whenever they are gone through."""

    def __init__(self, debugger: Debugger, wanted: Sequence[WantedMember], tasks: Sequence[Task]) -> None:
        self._debugger = debugger
        self._wanted = wanted
        self._tasks = tasks
        self._budget: Budget | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> TaskMembers: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[TaskMembers]: ...

    def __getitem__(self, index: int | slice) -> TaskMembers | Sequence[TaskMembers]:
        budget = Budget(MAX_TASKS)
        if isinstance(index, slice):
            return self._read(self._tasks[index], budget)
        return self._read([self._tasks[index]], budget)[0]

    def __iter__(self) -> Iterator[TaskMembers]:
        budget = self._budget = Budget(MAX_TASKS)
        for start in range(0, len(self._tasks), _BATCH):
            yield from self._read(self._tasks[start : start + _BATCH], budget)

    def _read(self, tasks: Sequence[Task], budget: Budget) -> list[TaskMembers]:
        addresses = [task.address for task in tasks]
        values = values_at(self._debugger.session.program, self._wanted, addresses, budget)
        symbols = pointer_names(self._debugger, [value for one in values for value in one])
        return [TaskMembers(task, one, symbols) for task, one in zip(tasks, values, strict=True)]

    def problems(self) -> list[str]:
        """What could not be read the last time."""
        if self._budget is None:
            for _ in self:
                pass
        return [] if self._budget is None else self._budget.lines()


class _Problems(Sequence[str]):
    """The problems of structures, which are known when these were read."""

    def __init__(self, structures: _StructuresRead) -> None:
        self._structures = structures

    def __len__(self) -> int:
        return len(self._structures.problems())

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._structures.problems()[index]


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
        owner = next((structure for structure in compounds if structure.find(path) is not None), compounds[0])
        # Since 4.9 on x86 (15f4eae70d36) thread_info is a task's first member, and has its address.
        found += members_at(program, owner, [path])
    return found


def members_of(
    debugger: Debugger, tasks: Sequence[Task], words: str | None = None, in_hexadecimal: bool = False
) -> TaskStructures:
    """What these tasks' structures hold."""
    found = _StructuresRead(debugger, _wanted(debugger, words), tasks)
    return TaskStructures(found, in_hexadecimal, _Problems(found))


@command(
    "task",
    summary="show a task's task_struct",
    group="machine",
    effect=Effect.NONE,
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
