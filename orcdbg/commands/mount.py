"""mount: the mounted file systems."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import find_task, of_each
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.files import MAX_FILES, OpenFile, open_files
from orcdbg.subsystems.inodes import MAX_INODES, DirtyInode, dirty_inodes
from orcdbg.subsystems.mounts import MAX_MOUNTS, Mount, mounts, namespace_of


@dataclass(frozen=True, slots=True)
class Mounts(Result):
    """The mounts of a namespace."""

    mounts: Sequence[Mount]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class MountFiles(Result):
    """With `-f`: mounts with the files on them that tasks have open."""

    mounts: Sequence[tuple[Mount, Sequence[tuple[Task, OpenFile]]]]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class MountInodes(Result):
    """With `-i`: mounts with the inodes of their file systems that have to be written."""

    mounts: Sequence[tuple[Mount, Sequence[DirtyInode]]]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--namespace", metavar="PID", help="the mounts that this task sees (default: the first process's)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-f", "--files", action="store_true", help="with the files on each that tasks have open")
    form.add_argument("-i", "--inodes", action="store_true", help="with the inodes of each that have to be written")
    parser.add_argument("which", nargs="*", metavar="WORD", help="only mounts with this type, device, path or address")


def _fits(mount: Mount, words: Sequence[str]) -> bool:
    addresses = (f"{mount.mount:x}", f"{mount.superblock:x}")
    known = (mount.type, mount.device, mount.path)
    return not words or any(word in known or word.removeprefix("0x").lower() in addresses for word in words)


@command(
    "mount",
    summary="show the mounted file systems",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(
        ("mount", "those that the first process sees"),
        ("mount -f /var", "with the files on it that are open"),
        ("mount -n 94 tmpfs", "of one type, as a task sees them"),
    ),
)
def mount(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the mounts of a namespace."""
    program = debugger.session.program
    task = None
    if arguments.namespace is not None:
        task = debugger.session.object("task_struct", find_task(debugger, arguments.namespace).address)
    budget = Budget(MAX_MOUNTS)
    found = mounts(namespace_of(program, task), budget)
    chosen = [one for one in found if _fits(one, arguments.which)]
    if arguments.files:
        return _with_files(debugger, chosen, budget.lines())
    if arguments.inodes:
        return _with_inodes(debugger, chosen, budget.lines())
    return Mounts(chosen, budget.lines())


def _with_files(debugger: Debugger, chosen: Sequence[Mount], problems: Sequence[str]) -> MountFiles:
    """The files that any task has open, under the mounts of the file systems that they are on."""
    session = debugger.session
    budget = Budget(MAX_FILES)
    by_inode: dict[int, int | None] = {}
    by_superblock: dict[int | None, list[tuple[Task, OpenFile]]] = {}
    for task, files in of_each(debugger, session.tasks, budget, "files", lambda one: open_files(one, budget)):
        for file in files:
            if file.inode not in by_inode:
                by_inode[file.inode] = _superblock_of(debugger, file.inode, budget)
            by_superblock.setdefault(by_inode[file.inode], []).append((task, file))
    found = [(one, by_superblock.get(one.superblock, [])) for one in chosen]
    return MountFiles(found, [*problems, *session.task_problems, *budget.lines()])


def _superblock_of(debugger: Debugger, inode: int, budget: Budget) -> int | None:
    try:
        return int(debugger.session.object("inode", inode).member_("i_sb")) if inode else None
    except OrcdbgError as error:
        budget.note_error("an inode", inode, error)
        return None


def _with_inodes(debugger: Debugger, chosen: Sequence[Mount], problems: Sequence[str]) -> MountInodes:
    """The dirty inodes of each file system, which several mounts may have in common."""
    budget = Budget(MAX_INODES)
    known: dict[int, list[DirtyInode]] = {}
    for one in chosen:
        if one.superblock not in known:
            superblock = debugger.session.object("super_block", one.superblock)
            known[one.superblock] = dirty_inodes(superblock, budget)
    return MountInodes([(one, known[one.superblock]) for one in chosen], [*problems, *budget.lines()])
