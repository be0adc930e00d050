"""waitq: the tasks that sleep on a wait queue."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.subsystems.wait_queues import MAX_WAITERS, Waiter, waiters
from orcdbg.typed.objects import Object


@dataclass(frozen=True, slots=True)
class WaitQueue(Result):
    """What waits on a queue at an address."""

    address: int
    waiters: Sequence[Waiter]
    symbols: Mapping[int, str]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="STRUCT.MEMBER|ADDR|SYMBOL", help="the wait queue, or the member that is one")
    parser.add_argument("where", nargs="?", metavar="ADDR|SYMBOL", help="the structure that has the member")


def _head(debugger: Debugger, what: str, where: str | None) -> Object:
    session = debugger.session
    if where is None:
        return session.object("wait_queue_head", debugger.address(what))
    type_, _, path = what.partition(".")
    head = session.object(type_, debugger.address(where)).member_(path)
    return head.deref_() if not head.has_member_("head") or head.size_ == 8 else head


@command(
    "waitq",
    summary="show the tasks that sleep on a wait queue",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    examples=(
        ("waitq kswapd_wait", "by symbol or address"),
        ("waitq signal_struct.wait_chldexit ffff888005051f40", "by a member of a structure"),
    ),
)
def waitq(debugger: Debugger, arguments: argparse.Namespace) -> WaitQueue:
    """Answers with the entries of a wait queue."""
    head = _head(debugger, arguments.what, arguments.where)
    budget = Budget(MAX_WAITERS)
    found = waiters(head, budget)
    return WaitQueue(head.address_ or 0, found, names_of(debugger, (one.function for one in found)), budget.lines())
