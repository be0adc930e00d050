"""net: the network devices and their addresses; the sockets of a task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import chosen_tasks, find_task, of_each
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.network import (
    MAX_DEVICES,
    Device,
    Neighbour,
    Socket,
    devices,
    namespace_of,
    neighbours,
    sockets_of,
)


@dataclass(frozen=True, slots=True)
class Network(Result):
    """The devices of a network namespace."""

    namespace: int
    devices: Sequence[Device]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Neighbours(Result):
    """With `-a`: the ARP cache, and that of IPv6."""

    neighbours: Sequence[Neighbour]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class TaskSockets:
    """The sockets of one task."""

    task: Task
    sockets: Sequence[Socket]


@dataclass(frozen=True, slots=True)
class Sockets(Result):
    """The sockets of tasks."""

    tasks: Sequence[TaskSockets]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "which", nargs="*", metavar="PID|TASK", help="with -s, whose sockets (default: the selected task's)"
    )
    parser.add_argument("-s", "--sockets", action="store_true", help="the sockets that a task has open")
    parser.add_argument("-a", "--arp", action="store_true", help="the neighbours: the ARP cache, and IPv6's")
    parser.add_argument(
        "-n", "--namespace", metavar="PID", help="the devices that this task sees (default: the first namespace's)"
    )


def sockets_of_tasks(debugger: Debugger, tasks: Sequence[Task]) -> Sockets:
    """The sockets of these tasks, the tasks without one left out if there are several."""
    budget = Budget(MAX_DEVICES)
    read = of_each(debugger, tasks, budget, "sockets", lambda one: sockets_of(one, budget))
    found = [TaskSockets(task, sockets) for task, sockets in read if sockets or len(tasks) == 1]
    return Sockets(found, budget.lines())


@command(
    "net",
    summary="show network devices, or a task's sockets",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("task",),
    examples=(("net", "the devices and their addresses"), ("net -s 94", "the sockets of the task with pid 94")),
)
def net(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with devices, neighbours, or sockets."""
    if arguments.sockets:
        return sockets_of_tasks(debugger, chosen_tasks(debugger, arguments.which))
    if arguments.arp:
        budget = Budget(MAX_DEVICES)
        return Neighbours(neighbours(debugger.session.program, budget), budget.lines())
    task = None
    if arguments.namespace is not None:
        task = debugger.session.object("task_struct", find_task(debugger, arguments.namespace).address)
    budget = Budget(MAX_DEVICES)
    namespace = namespace_of(debugger.session.program, task)
    return Network(int(namespace), devices(namespace, budget), budget.lines())


def for_tasks(debugger: Debugger, tasks: Sequence[Task], arguments: argparse.Namespace) -> Sockets:
    """What `foreach net` answers: sockets in any case, since devices are no task's."""
    return sockets_of_tasks(debugger, tasks)
