"""files: what a task has open."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import NoneFits, Result
from orcdbg.commands.task_choice import chosen_tasks, of_each
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.files import MAX_FILES, FileTable, OpenFile, file_table
from orcdbg.subsystems.inodes import MAX_CACHED_PAGES, CachedPage, cached_pages


@dataclass(frozen=True, slots=True)
class TaskFiles:
    """What one task has open."""

    task: Task
    table: FileTable


@dataclass(frozen=True, slots=True)
class Files(Result):
    """What tasks have open; `with_pages` shows what the page cache holds of each file."""

    tasks: Sequence[TaskFiles]
    with_pages: bool
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class FilePages(Result):
    """With `-p`: what the page cache holds of the file with an inode."""

    inode: int
    pages: Sequence[CachedPage]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="*", metavar="PID|TASK", help="whose files (default: the selected task's)")
    parser.add_argument(
        "-R", "--has", metavar="WORD", help="only files with this text in their path or type, or at this address"
    )
    parser.add_argument(
        "-p", "--pages", metavar="INODE", help="the pages of the file with this inode in the page cache"
    )
    parser.add_argument("-c", "--cached", action="store_true", help="how many pages of each file the page cache holds")


def _fits(file: OpenFile, word: str) -> bool:
    if word in (str(file.descriptor), file.type) or word in (file.path or ""):
        return True
    return word.removeprefix("0x").lstrip("0") in (f"{one:x}" for one in (file.file, file.dentry, file.inode))


def files_of(debugger: Debugger, tasks: Sequence[Task], word: str | None = None, with_pages: bool = False) -> Files:
    """What these tasks have open; with `word` only the files that it fits, and the tasks that have one."""
    budget = Budget(MAX_FILES)
    found = []
    for task, table in of_each(debugger, tasks, budget, "files", lambda one: file_table(one, budget)):
        if word is not None:
            table = FileTable(table.root, table.working_directory, [one for one in table.files if _fits(one, word)])
        if word is None or table.files:
            found.append(TaskFiles(task, table))
    return Files(found, with_pages, budget.lines())


@command(
    "files",
    summary="show the files that a task has open",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task",),
    examples=(
        ("files 94", "the files of the task with pid 94"),
        ("files -p ffff888004a2c1c0", "the pages of a file in the page cache, by its inode"),
        ("files -R /var/log", "the files of the selected task below /var/log"),
    ),
)
def files(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with the open files of tasks, or with the pages of one."""
    if arguments.pages is not None:
        inode = debugger.address(arguments.pages)
        budget = Budget(MAX_CACHED_PAGES)
        found = cached_pages(debugger.session.object("inode", inode), debugger.session.kernel_memory.pages, budget)
        return FilePages(inode, found, budget.lines())
    return for_tasks(debugger, chosen_tasks(debugger, arguments.which), arguments)


def for_tasks(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> Result:
    """What `files` and `foreach files` answer of some tasks."""
    found = files_of(debugger, tasks, arguments.has, arguments.cached)
    if arguments.has is None or found.tasks:
        return found
    return NoneFits("open files", found, found.problems)
