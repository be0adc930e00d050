"""waits: which tasks wait, for what, and who has it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import find_task
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.waits.model import Cycle, Edge, Graph
from orcdbg.target.wait_graph import wait_graph


@dataclass(frozen=True, slots=True)
class Waits(Result):
    """Who waits for whom.

    Attributes:
        edges: those that are shown; in the order of the tasks.
        cycles: of the whole graph, those that a shown edge is on.
        chains: by a waiter's address its edges up to the last task that it waits for in the end.
        unexplained: the tasks that were asked for and whose wait is not to be found.
        tasks: those that are named here, by address.
        symbols: names of objects.
        is_whole: whether all blocked tasks are shown.
        with_evidence: whether all evidence is shown.
        problems: what could not be read.
    """

    edges: Sequence[Edge]
    cycles: Sequence[Cycle]
    chains: Mapping[int, Sequence[Edge]]
    unexplained: Sequence[int]
    tasks: Mapping[int, Task]
    symbols: Mapping[int, str]
    is_whole: bool
    with_evidence: bool
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "which",
        nargs="*",
        metavar="PID|TASK",
        help="these tasks, whatever they wait for (default: all in uninterruptible sleep, and all that wait for a lock)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="with the evidence for each wait and each holder")


def named_tasks(debugger: Debugger, graph: Graph) -> Mapping[int, Task]:
    """The tasks that a graph names, by address."""
    named = {edge.waiter for edge in graph.edges} | {edge.holder for edge in graph.edges} | set(graph.unexplained)
    return {task.address: task for task in debugger.session.tasks if task.address in named}


@command(
    "waits",
    summary="show which tasks wait for which, and name deadlocks",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task",),
    examples=(
        ("waits", "all blocked tasks, by what they wait for"),
        ("waits -v 94", "what the task with pid 94 waits for, and how that is known"),
    ),
)
def waits(debugger: Debugger, arguments: argparse.Namespace) -> Waits:
    """Answers with the wait graph, or with some tasks' part of it."""
    session = debugger.session
    chosen = [find_task(debugger, word) for word in arguments.which]
    graph = wait_graph(session, chosen)
    wanted = {task.address for task in chosen} or set(graph.by_waiter)
    edges = [edge for edge in graph.edges if edge.waiter in wanted]
    cycles = [cycle for cycle in graph.cycles if wanted & set(cycle.tasks)]
    return Waits(
        edges,
        cycles,
        {edge.waiter: graph.chain(edge.waiter) for edge in edges},
        [task for task in graph.unexplained if not chosen or task in wanted],
        named_tasks(debugger, graph),
        names_of(debugger, (edge.object for edge in graph.edges if edge.object)),
        not chosen,
        arguments.verbose,
        graph.problems,
    )
