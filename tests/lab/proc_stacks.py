"""What a guest says of its tasks' stacks, and of which tasks it says it: the measure of ours."""

from __future__ import annotations

from orcdbg.kernel.tasks import Task
from orcdbg.target.session import Session
from orcdbg.unwind.frame import FrameKind, StackTrace
from orcdbg.unwind.reasons import StackGone


def as_proc_prints(session: Session, trace: StackTrace) -> list[str]:
    """A trace as /proc/PID/stack shows it: without the scheduler's own functions and without user frames."""
    start, end = session.linux.address("__sched_text_start"), session.linux.address("__sched_text_end")
    frames = [f for f in trace.frames if f.kind != FrameKind.USER and not start <= f.ip < end]
    return [session.names.describe(f.ip, f.exact) or "" for f in frames]


def blocked_tasks(session: Session, stacks: dict[int, list[str]]) -> list[Task]:
    """The tasks that the guest listed and that no CPU runs."""
    return [t for t in session.tasks if t.pid in stacks and t.pid and t.address not in session.unwinder.running]


def is_gone(task: Task, trace: StackTrace) -> bool:
    """Whether a task has exited and given its stack back: there is nothing to walk, and that is said."""
    if task.stack:
        return False
    assert task.state in ("ZO", "DE"), task
    assert (len(trace.frames), trace.end_reason) == (0, StackGone()), (task, trace.end_reason)
    return True
