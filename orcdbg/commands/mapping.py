"""vtop: how a virtual address becomes a physical one, table by table."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, NotInSnapshot
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Result
from orcdbg.snapshot.pagetables import Translation


@dataclass(frozen=True, slots=True)
class AddressMapping:
    """An address's translation, and by whose tables: the kernel's own, or those of the task with that pid.

    `in_snapshot` says whether the page behind it was saved, `encryption_mask` is as in KernelMemory.
    """

    address: int
    translation: Translation
    pid: int | None
    in_snapshot: bool
    encryption_mask: int


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "where", metavar="ADDR|SYMBOL", help="a virtual address; one of user mode is the selected task's"
    )


def _user_root(debugger: Debugger) -> int:
    """Physical address of the selected task's own top page table."""
    linux, task = debugger.session.linux, debugger.task
    mm = linux.member("task_struct", "mm", task.address)
    if not mm:
        raise NotFound("user memory", f"of task {task.pid}", "it is a kernel thread; `set TASK` selects another")
    return debugger.session.memory.translate(linux.member("mm_struct", "pgd", mm))


def _vtop(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    session = debugger.session
    address = debugger.address(arguments.where)
    is_user = not address >> 63
    root = _user_root(debugger) if is_user else None
    found = session.memory.explain(address, root)
    saved = False
    if found.physical is not None:
        try:
            session.snapshot.physical.read(found.physical, 1)
            saved = True
        except NotInSnapshot:
            saved = False
    return AddressMapping(address, found, debugger.task.pid if is_user else None, saved, session.memory.encryption_mask)


COMMANDS = (
    Command(
        "vtop",
        "translate a virtual address, page table by page table",
        "data",
        _vtop,
        _arguments,
        examples=(("vtop linux_banner", "of a symbol"), ("vtop 7ffe8ebd4898", "of the selected task's user memory")),
        operands=("symbol",),
    ),
)
