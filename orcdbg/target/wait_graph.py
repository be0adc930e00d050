"""Which tasks of this session wait for which, by their walked stacks?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orcdbg.kernel.tasks import Sleep, Task
from orcdbg.subsystems.waits.graph import WaitReader
from orcdbg.subsystems.waits.model import Graph
from orcdbg.subsystems.waits.sleeping import SleepingTask, StackPart
from orcdbg.unwind.frame import StackTrace

if TYPE_CHECKING:
    from orcdbg.target.session import Session

# Frames from the sleep on: what is waited for is a few frames above it.
_FRAMES = 16


def wait_reader(session: Session) -> WaitReader:
    """Reads waits and locks of a session's kernel."""
    return WaitReader(session.program, session.tasks, session.is_text)


def parts_of(trace: StackTrace) -> list[StackPart]:
    """The innermost frames of a stack, as far as their functions are known and each has its own place on it."""
    parts: list[StackPart] = []
    for frame in trace.frames[:_FRAMES]:
        if frame.location is None or frame.cfa is None:
            break
        parts.append(StackPart(frame.location.symbol, frame.sp, frame.cfa, frame.mark.is_sure))
    return parts


def sleepers_of(session: Session, tasks: Sequence[Task]) -> list[SleepingTask]:
    """Those of some tasks that are switched out, with their stacks."""
    running = session.unwinder.running
    asleep = [task for task in tasks if task.address not in running and task.sleep is not None]
    traces = session.unwinder.traces(asleep)
    return [SleepingTask(task, parts_of(trace)) for task, trace in zip(asleep, traces, strict=True)]


def wait_graph(session: Session, tasks: Sequence[Task] = ()) -> Graph:
    """Who waits for whom.

    Args:
        session: the stopped kernel.
        tasks: whose every wait is wanted. Of the others that sleep uninterruptibly it has every wait too, of the rest those
            for locks: the graph is whole, so that chains and cycles are.
    """
    chosen = {task.address for task in tasks}
    asleep = [task for task in session.tasks if task.sleep is not None or task.address in chosen]
    graph = wait_reader(session).graph(sleepers_of(session, asleep))
    wanted = {task.address for task in asleep if task.sleep is Sleep.UNINTERRUPTIBLE} | chosen
    edges = tuple(edge for edge in graph.edges if edge.waiter in wanted or edge.kind.is_lock)
    return Graph(edges, tuple(task for task in graph.unexplained if task in wanted), graph.problems)
