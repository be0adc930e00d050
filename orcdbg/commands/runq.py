"""runq: what each CPU runs, and which tasks wait for it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import chosen_cpus
from orcdbg.subsystems.run_queues import MAX_QUEUED, RunQueue, run_queues


@dataclass(frozen=True, slots=True)
class RunQueues(Result):
    """Run queues, with the options that say what of them is shown."""

    queues: Sequence[RunQueue]
    with_times: bool
    with_groups: bool
    with_arrivals: bool
    with_lag: bool
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--cpu", metavar="CPUS", help="only these CPUs, such as 0,2-4")
    parser.add_argument(
        "-m", "--running-time", action="store_true", help="how long each CPU's task has run since it was accounted for"
    )
    parser.add_argument("-g", "--groups", action="store_true", help="the task group that each task is in")
    parser.add_argument(
        "-t", "--timestamps", action="store_true", help="each queue's clock, and when each task last came on a CPU"
    )
    parser.add_argument(
        "-T", "--lag", action="store_true", help="how far each queue's clock is behind the latest one of those shown"
    )


@command(
    "runq",
    summary="show what each CPU runs and what waits for it",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("runq", "all CPUs"), ("runq -c 1 -g", "those that wait for CPU 1, with their task groups")),
)
def runq(debugger: Debugger, arguments: argparse.Namespace) -> RunQueues:
    """Answers with the run queues of the CPUs that are online."""
    budget = Budget(MAX_QUEUED)
    found = run_queues(debugger.session.program, budget)
    if arguments.cpu is not None:
        wanted = set(chosen_cpus(debugger, arguments.cpu))
        found = [queue for queue in found if queue.cpu in wanted]
    return RunQueues(
        found, arguments.running_time, arguments.groups, arguments.timestamps, arguments.lag, budget.lines()
    )
