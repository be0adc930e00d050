"""vm: what is mapped into a task's memory."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import NotFound, OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.members import MemberValue, pointer_names, values_at, wanted_members
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import chosen_tasks, of_each
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.memory_maps import MAX_AREAS, Area, MemoryMap, memory_map
from orcdbg.subsystems.user_memory import UserStretch

# Of all tasks that one answer shows: 4 GiB.
# Ten microseconds each, so that areas whose bounds are damaged cost seconds. Large pages, and what has no table, count as one.
MAX_PAGES = 1 << 18


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """One task's memory; `map` is None of a task without user memory.

    `pages` has the pages of each area by its address; None where nobody asked for them.
    """

    task: Task
    map: MemoryMap | None
    pages: Mapping[int, Sequence[UserStretch]] | None = None


@dataclass(frozen=True, slots=True)
class MemoryStructure:
    """A structure of a task's memory: `mm_struct` or `vm_area_struct`, its address, its members."""

    name: str
    address: int
    values: tuple[MemberValue, ...]


@dataclass(frozen=True, slots=True)
class TaskMemoryStructures:
    """The structures of one task's memory; none of a task without user memory."""

    task: Task
    structures: Sequence[MemoryStructure]


@dataclass(frozen=True, slots=True)
class MemoryStructures(Result):
    """With `-m` and `-v`: the kernel's own structures of tasks' memory; `symbols` names the pointers among the values."""

    tasks: Sequence[TaskMemoryStructures]
    symbols: Mapping[int, str]
    in_hexadecimal: bool
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Memory(Result):
    """What is mapped into the memory of tasks."""

    tasks: Sequence[TaskMemory]
    with_flags: bool
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="*", metavar="PID|TASK", help="whose memory (default: the selected task's)")
    parser.add_argument(
        "-R", "--has", metavar="WORD", help="only areas with this text in their name, or that hold this address"
    )
    parser.add_argument(
        "-f", "--flags", action="store_true", help="vm_flags in hexadecimal and the offset into the file as well"
    )
    parser.add_argument(
        "-p",
        "--pages",
        action="store_true",
        help="where the pages of each area are: in memory, on swap, in a file, nowhere",
    )
    parser.add_argument(
        "-P", "--area", metavar="VMA", help="as -p, of the area whose vm_area_struct is at this address"
    )
    parser.add_argument("-m", "--mm-struct", action="store_true", help="the mm_struct instead")
    parser.add_argument(
        "-v",
        "--area-structs",
        action="store_true",
        help="the vm_area_struct of each area instead, of those that -R names",
    )
    parser.add_argument("-x", "--hexadecimal", action="store_true", help="with -m and -v, numbers in hexadecimal")


def _fits(area: Area, word: str) -> bool:
    try:
        number = int(word, 16)
    except ValueError:
        number = -1
    return word in (area.name or "") or area.start <= number < area.end or number == area.address


def memory_of(
    debugger: Debugger,
    tasks: Sequence[Task],
    word: str | None = None,
    with_flags: bool = False,
    with_pages: bool = False,
) -> Memory:
    """The memory of these tasks; with `word` only the areas that it fits, and the tasks that have one."""
    budget, pages_budget = Budget(MAX_AREAS), Budget(MAX_PAGES)
    found = []
    for task, mapped in of_each(debugger, tasks, budget, "memory", lambda one: memory_map(one, budget)):
        if word is not None:
            if mapped is None or not any(_fits(area, word) for area in mapped.areas):
                continue
            areas = [area for area in mapped.areas if _fits(area, word)]
            mapped = MemoryMap(mapped.mm, mapped.pgd, mapped.resident, mapped.total, areas)
        pages = _pages(debugger, task, mapped, pages_budget) if with_pages and mapped is not None else None
        found.append(TaskMemory(task, mapped, pages))
    return Memory(found, with_flags, [*budget.lines(), *pages_budget.lines()])


def structures_of(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> MemoryStructures:
    """The mm_struct of each task, its vm_area_structs, or both, as the options ask."""
    memory = memory_of(debugger, tasks, arguments.has)
    program, budget = debugger.session.program, Budget(MAX_AREAS)
    found = []
    for one in memory.tasks:
        places: list[tuple[str, list[int]]] = []
        if one.map is not None and arguments.mm_struct:
            places.append(("mm_struct", [one.map.mm]))
        if one.map is not None and arguments.area_structs:
            places.append(("vm_area_struct", [area.address for area in one.map.areas]))
        structures = []
        for name, addresses in places:
            values = values_at(program, wanted_members(program, [f"struct {name}"]), addresses, budget)
            structures += [MemoryStructure(name, *pair) for pair in zip(addresses, values, strict=True)]
        found.append(TaskMemoryStructures(one.task, structures))
    symbols = pointer_names(debugger, [value for one in found for part in one.structures for value in part.values])
    return MemoryStructures(
        found, symbols, (arguments.hexadecimal or debugger.in_hexadecimal), [*memory.problems, *budget.lines()]
    )


def _pages(debugger: Debugger, task: Task, mapped: MemoryMap, budget: Budget) -> dict[int, Sequence[UserStretch]]:
    """The pages of each area."""
    try:
        memory = debugger.session.kernel_memory.user_memory(task)
    except OrcdbgError as error:
        budget.note_error(f"the page table of task {task.pid}", task.address, error)
        return {}
    return {area.address: memory.stretches(area.start, area.end, budget) for area in mapped.areas}


@command(
    "vm",
    summary="show what is mapped into a task's memory",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task",),
    examples=(
        ("vm 94", "the memory of the task with pid 94"),
        ("vm -p 94", "and where each page of it is"),
        ("vm -R libc", "where the selected task maps a file of that name"),
        ("vm -v -R libc", "and the vm_area_struct of each of these areas"),
    ),
)
def vm(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the areas of user memory of tasks, or with the kernel's structures of it."""
    return for_tasks(debugger, chosen_tasks(debugger, arguments.which), arguments)


def for_tasks(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> Result:
    """What `foreach vm` answers."""
    if arguments.mm_struct or arguments.area_structs:
        return structures_of(debugger, tasks, arguments)
    if arguments.area is not None:
        return _of_area(debugger, tasks, arguments)
    return memory_of(debugger, tasks, arguments.has, arguments.flags, arguments.pages)


def _of_area(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> Memory:
    """The pages of one area; NotFound where no task has it."""
    address = debugger.address(arguments.area)
    found = memory_of(debugger, tasks, f"{address:x}", arguments.flags, with_pages=True)
    held = []
    for one in found.tasks:
        areas = [area for area in one.map.areas if area.address == address] if one.map is not None else []
        if one.map is not None and areas:
            held.append(replace(one, map=MemoryMap(one.map.mm, one.map.pgd, one.map.resident, one.map.total, areas)))
    if not held:
        raise NotFound("area of user memory", f"{address:#x}", "`vm` lists those of a task")
    return replace(found, tasks=held)
