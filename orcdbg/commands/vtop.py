"""vtop: how a virtual address becomes a physical one, table by table."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, NotInSnapshot
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.snapshot.pagetables import Translation


@dataclass(frozen=True, slots=True)
class AddressMapping(Result):
    """An address's translation, and by whose tables: the kernel's own, or those of the task with that pid.

    `in_snapshot` says whether the page behind it was saved, `encryption_mask` is as in KernelMemory.
    """

    address: int
    translation: Translation
    pid: int | None
    in_snapshot: bool
    encryption_mask: int


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="ADDR|SYMBOL", help="a virtual address; a user address is the selected task's")


def _user_root(debugger: Debugger) -> int:
    """Physical address of the selected task's own top page table."""
    linux, task = debugger.session.linux, debugger.task
    mm = linux.member("task_struct", "mm", task.address)
    if not mm:
        raise NotFound(
            "user address space", f"that of task {task.pid}", "it is a kernel thread; `set TASK` selects another"
        )
    return debugger.session.memory.translate(linux.member("mm_struct", "pgd", mm))


@command(
    "vtop",
    summary="translate a virtual address, page table by page table",
    group="data",
    arguments=_arguments,
    operands=("symbol",),
    examples=(("vtop linux_banner", "of a symbol"), ("vtop 7ffe8ebd4898", "of the selected task's user memory")),
)
def vtop(debugger: Debugger, arguments: argparse.Namespace) -> AddressMapping:
    """Answers with the entries on the way to the page, and whether the page was saved."""
    session = debugger.session
    address = debugger.address(arguments.where)
    is_user = not address >> 63
    root = _user_root(debugger) if is_user else None
    translation = session.memory.explain(address, root)
    saved = False
    if translation.physical is not None:
        try:
            session.snapshot.physical.read(translation.physical, 1)
            saved = True
        except NotInSnapshot:
            saved = False
    return AddressMapping(
        address, translation, debugger.task.pid if is_user else None, saved, session.memory.encryption_mask
    )
