"""Which tasks of this session wait for which, by their walked stacks?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from orcdbg.kernel.tasks import Sleep, Task
from orcdbg.subsystems.waits.graph import WaitReader
from orcdbg.subsystems.waits.model import Graph
from orcdbg.subsystems.waits.sleeping import SleepingTask, StackPart
from orcdbg.unwind.batch.equal_stacks import SharedFrames
from orcdbg.unwind.frame import Frame, StackTrace

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
    for frame, sp, cfa in _places(trace.frames):
        if frame.location is None or cfa is None:
            break
        parts.append(StackPart(frame.location.symbol, sp, cfa, frame.mark.is_sure))
    return parts


def _places(frames: Sequence[Frame]) -> Iterator[tuple[Frame, int, int | None]]:
    """Frames with where they begin and end; of equal stacks without making their frames, which for 20,000 takes 12 s."""
    if not isinstance(frames, SharedFrames):
        yield from ((frame, frame.sp, frame.cfa) for frame in frames[:_FRAMES])
        return
    top = frames.top
    for level in frames.shape.levels[:_FRAMES]:
        yield level.prototype, top + level.sp, None if level.cfa is None else top + level.cfa


def sleepers_of(session: Session, tasks: Sequence[Task], wanted: Collection[int]) -> list[SleepingTask]:
    """Those of some tasks that are switched out, with their stacks; of those that are not `wanted` only waits for locks."""
    running = session.unwinder.running
    asleep = [task for task in tasks if task.address not in running and task.sleep is not None]
    traces = session.unwinder.traces(asleep)
    return [
        SleepingTask(task, parts_of(trace), task.address not in wanted)
        for task, trace in zip(asleep, traces, strict=True)
    ]


def wait_graph(session: Session, tasks: Sequence[Task] = ()) -> Graph:
    """Who waits for whom.

    Args:
        session: the stopped kernel.
        tasks: whose every wait is wanted. Of the others that sleep uninterruptibly it has every wait too, of the rest those
            for locks: the graph is whole, so that chains and cycles are.
    """
    chosen = {task.address for task in tasks}
    asleep = [task for task in session.tasks if task.sleep is not None or task.address in chosen]
    wanted = {task.address for task in asleep if task.sleep is Sleep.UNINTERRUPTIBLE} | chosen
    graph = wait_reader(session).graph(sleepers_of(session, asleep, wanted))
    return Graph(graph.edges, tuple(task for task in graph.unexplained if task in wanted), graph.problems)
