"""mount: the mounted file systems."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import find_task
from orcdbg.subsystems.mounts import MAX_MOUNTS, Mount, mounts, namespace_of


@dataclass(frozen=True, slots=True)
class Mounts(Result):
    """The mounts of a namespace."""

    mounts: Sequence[Mount]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--namespace", metavar="PID", help="the mounts that this task sees (default: the first process's)"
    )
    parser.add_argument("which", nargs="*", metavar="WORD", help="only mounts with this type, device, path or address")


def _fits(mount: Mount, words: Sequence[str]) -> bool:
    addresses = (f"{mount.mount:x}", f"{mount.superblock:x}")
    known = (mount.type, mount.device, mount.path)
    return not words or any(word in known or word.removeprefix("0x").lower() in addresses for word in words)


@command(
    "mount",
    summary="show the mounted file systems",
    group="machine",
    arguments=_arguments,
    examples=(
        ("mount", "those that the first process sees"),
        ("mount -n 94 tmpfs", "of one type, as a task sees them"),
    ),
)
def mount(debugger: Debugger, arguments: argparse.Namespace) -> Mounts:
    """Answers with the mounts of a namespace."""
    program = debugger.session.program
    task = None
    if arguments.namespace is not None:
        task = debugger.session.object("task_struct", find_task(debugger, arguments.namespace).address)
    budget = Budget(MAX_MOUNTS)
    found = mounts(namespace_of(program, task), budget)
    return Mounts([one for one in found if _fits(one, arguments.which)], budget.lines())
