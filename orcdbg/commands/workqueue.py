"""workqueue: what the kernel's workers do, and which work waits for them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.subsystems.workqueues import MAX_WORK, Pool, Workqueue, pools, workqueues


@dataclass(frozen=True, slots=True)
class Workqueues(Result):
    """Pools of workers, and workqueues; `with_all` shows those that have nothing to do as well."""

    pools: Sequence[Pool]
    queues: Sequence[Workqueue]
    symbols: Mapping[int, str]
    with_all: bool
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="idle workers, pools and workqueues as well")


@command(
    "workqueue",
    summary="show workers, what they run, and work that waits",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("workqueue", "what runs and waits now"), ("workqueue -a", "with all idle workers and workqueues")),
)
def workqueue(debugger: Debugger, arguments: argparse.Namespace) -> Workqueues:
    """Answers with all pools and workqueues."""
    program = debugger.session.program
    budget = Budget(MAX_WORK)
    found, queues = pools(program, budget), workqueues(program, budget)
    functions = [worker.function for pool in found for worker in pool.workers]
    functions += [work.function for pool in found for work in pool.pending]
    functions += [work.function for queue in queues for work in queue.inactive]
    return Workqueues(found, queues, names_of(debugger, functions), arguments.all, budget.lines())
