"""A kernel that runs while its stacks are read: the sample's memory, in which a task runs on between two looks at it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orcdbg.kernel.tasks import Task
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End
from orcdbg.unwind.live import LiveUnwinder
from orcdbg.unwind.reasons import CpuNotSaved, RanMeanwhile
from tests.damage import DamagedStacks, Ground


class Running:
    """The sample's kernel, whose memory may change each time that what was cached of it is dropped."""

    def __init__(self, ground: Ground) -> None:
        self.session = ground.session
        self.memory = DamagedStacks(ground.session.memory, {}, set())
        self.terrain = ground.damaged(self.memory).terrain
        self.looks = 0

    def unwinder(self, change: Callable[[int], None]) -> LiveUnwinder:
        """Walks while `change` is called with the number of each look."""

        def forget() -> None:
            self.looks += 1
            change(self.looks)

        return LiveUnwinder(self.terrain, (), forget)

    def set_member(self, task: Task, name: str, value: int, size: int = 8) -> None:
        """Changes a member of a task_struct."""
        at = task.address + self.session.types.offset("task_struct", name)
        self.memory.changed |= {at + number: value >> 8 * number & 0xFF for number in range(size)}


@pytest.fixture
def running(sample: Session) -> Running:
    """A fresh one for each test."""
    return Running(Ground(sample))


@pytest.fixture
def sleeper(sample: Session) -> Task:
    """A user task that no CPU runs."""
    return next(
        t for t in sample.tasks if t.pid and not t.is_kernel_thread and t.address not in sample.unwinder.running
    )


def test_a_task_that_stands_still_has_the_stack_of_any_snapshot(running: Running, sample: Session) -> None:
    """One look before, and one after."""
    tasks = [task for task in sample.tasks if task.pid and task.address not in sample.unwinder.running]
    for task in tasks:
        running.looks = 0
        assert running.unwinder(lambda _: None).trace(task) == sample.unwinder.trace(task)
        assert running.looks == 2
    assert len(tasks) > 10


def test_a_task_on_a_cpu_has_no_frames(running: Running, sleeper: Task) -> None:
    """Its saved stack pointer is an old one, and where it points is what the CPU writes."""
    running.set_member(sleeper, "on_cpu", 1, 4)
    trace = running.unwinder(lambda _: None).trace(sleeper)
    assert (trace.frames, trace.end, trace.end_reason) == ((), End.STOPPED, CpuNotSaved(sleeper.cpu))
    assert trace.running


@pytest.mark.parametrize("member", ["nvcsw", "nivcsw", "thread.sp", "stack", "on_cpu"])
def test_a_task_that_runs_again_and_again_has_no_frames(running: Running, sleeper: Task, member: str) -> None:
    """Whatever of it is another after the walk: the walk may have read words of two times."""
    own = running.session.linux.member("task_struct", member, sleeper.address)

    def runs(look: int) -> None:
        value = 1 - look % 2 if member == "on_cpu" else own + 8 * look
        running.set_member(sleeper, member, value, 4 if member == "on_cpu" else 8)

    trace = running.unwinder(runs).trace(sleeper)
    is_on_cpu = member == "on_cpu"  # and that is seen at the second attempt
    why = CpuNotSaved(sleeper.cpu) if is_on_cpu else RanMeanwhile()
    assert (trace.frames, trace.end, trace.end_reason, trace.running) == ((), End.STOPPED, why, is_on_cpu)


def test_a_task_that_ran_once_is_looked_at_again(running: Running, sleeper: Task, sample: Session) -> None:
    """It sleeps again, and the second walk counts."""
    switches = running.session.linux.member("task_struct", "nvcsw", sleeper.address)
    trace = running.unwinder(lambda look: running.set_member(sleeper, "nvcsw", switches + (look > 1))).trace(sleeper)
    assert trace == sample.unwinder.trace(sleeper)
    assert running.looks == 3


def test_a_task_that_gave_its_memory_back_is_told_as_such(running: Running, sleeper: Task) -> None:
    """Its task_struct is of a page that is gone."""
    running.memory.missing |= set(range(sleeper.address >> 12, (sleeper.address >> 12) + 4))
    trace = running.unwinder(lambda _: None).trace(sleeper)
    assert (trace.frames, trace.end) == ((), End.STOPPED)
    assert type(trace.end_reason).__name__ == "StartUnreadable"
