"""vtop: how a virtual address becomes a physical one, table by table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotInSnapshot, OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import find_task
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.pagetables import Translation
from orcdbg.subsystems.user_memory import UserPage


@dataclass(frozen=True, slots=True)
class AddressMapping(Result):
    """An address's translation, and by whose tables: the kernel's own, or those of the task with that pid.

    `in_snapshot` says whether the page behind it was saved, `encryption_mask` is as in KernelMemory. `user` is what is at a
    user address, where nothing is present too.
    """

    address: int
    translation: Translation
    pid: int | None
    in_snapshot: bool
    encryption_mask: int
    user: UserPage | None = None


@dataclass(frozen=True, slots=True)
class TaskMappings(Result):
    """Of `foreach vtop`: an address's translation for each task; those without user memory are among the problems."""

    tasks: Sequence[tuple[Task, AddressMapping]]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL", help="a virtual address; a user address is the selected task's")
    space = parser.add_mutually_exclusive_group()
    space.add_argument("-u", "--user", action="store_true", help="the address is of user memory")
    space.add_argument("-k", "--kernel", action="store_true", help="the address is the kernel's")
    parser.add_argument("-c", "--context", metavar="PID|TASK", help="of this task's user memory")


@command(
    "vtop",
    summary="translate a virtual address, page table by page table",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(("vtop linux_banner", "of a symbol"), ("vtop 7ffe8ebd4898", "of the selected task's user memory")),
)
def vtop(debugger: Debugger, arguments: argparse.Namespace) -> AddressMapping:
    """Answers with the entries on the way to the page, and whether the page was saved."""
    task = debugger.task if arguments.context is None else find_task(debugger, arguments.context)
    return _mapping(debugger, task, arguments)


def for_tasks(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> TaskMappings:
    """What `foreach vtop` answers."""
    address = debugger.address(arguments.where)
    if arguments.user and address >> 63:
        raise UsageError(f"not a user address: {address:#x}")
    found, problems = [], []
    for task in tasks:
        try:
            found.append((task, _mapping(debugger, task, arguments)))
        except OrcdbgError as error:
            problems.append(f"the page tables of task {task.pid}: {error}")
    return TaskMappings(found, problems)


def _mapping(debugger: Debugger, task: Task, arguments: argparse.Namespace) -> AddressMapping:
    session = debugger.session
    address = debugger.address(arguments.where)
    is_user = not arguments.kernel and (arguments.user or not address >> 63)
    if is_user and address >> 63:
        raise UsageError(f"not a user address: {address:#x}")

    user = session.kernel_memory.user_memory(task).page(address) if is_user else None
    translation = session.memory.explain(address) if user is None else user.translation
    saved = False
    if translation.physical is not None:
        try:
            session.snapshot.physical.read(translation.physical, 1)
            saved = True
        except NotInSnapshot:
            saved = False
    return AddressMapping(
        address, translation, task.pid if is_user else None, saved, session.memory.encryption_mask, user
    )
