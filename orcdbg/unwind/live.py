"""What is the stack of a task of a kernel that runs while it is read? Of one that ran meanwhile nothing is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reasons import Reason
from orcdbg.base.walks import Budget
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.machine import CpuState
from orcdbg.unwind.frame import End, StackTrace
from orcdbg.unwind.reasons import CpuNotSaved, RanMeanwhile, StartUnreadable
from orcdbg.unwind.unwinder import MAX_SCANNED, Unwinder, WalkStart
from orcdbg.unwind.walker import Terrain

# A task that ran while its stack was read may sleep again at the next attempt.
_ATTEMPTS = 4
_COMPARED = ("pid", "stack", "thread.sp", "nvcsw", "nivcsw")


class _Stillness(NamedTuple):
    """What is another as soon as a task has run, or as its memory is another task's.

    The scheduler counts a switch before it leaves a task, and sets `on_cpu` before it goes over to one (kernel/sched/core.c:
    `__schedule`, `prepare_task`). So the stack of a task for which all of this is the same before and after, and which is on
    no CPU, has not been used in between.
    """

    is_on_cpu: bool
    pid: int
    stack: int
    sp: int
    voluntary_switches: int
    involuntary_switches: int


class LiveUnwinder(Unwinder):
    """Walks tasks of the running kernel, one by one: where many were read together, more would have run meanwhile.

    Args:
        terrain: the kernel.
        cpus: none is known of the running kernel.
        forget: drops what was cached of memory.
    """

    def __init__(self, terrain: Terrain, cpus: Sequence[CpuState], forget: Callable[[], None]) -> None:
        super().__init__(terrain, cpus)
        self._forget = forget

    @property
    def switching(self) -> Mapping[int, Reason]:
        """None: a task whose saved registers a CPU may be writing over is on that CPU already."""
        return {}

    def trace(self, task: Task, budget: Budget | None = None) -> StackTrace:
        """The stack of a task that stood still while it was read; no frame of another, and the reason."""
        return self.traces([task], budget)[0]

    def traces(self, tasks: Sequence[Task], budget: Budget | None = None) -> list[StackTrace]:
        """The stacks of many tasks; see `trace`."""
        shared = Budget(MAX_SCANNED) if budget is None else budget
        self._forget()
        return [self._of_still(task, shared) for task in tasks]

    def _of_still(self, task: Task, budget: Budget) -> StackTrace:
        """The stack of a task; no page of it may have been kept from earlier reading."""
        for _ in range(_ATTEMPTS):
            before = self._stillness(task)
            if isinstance(before, Reason):
                return _nothing(task, before)
            if before.is_on_cpu:
                return _nothing(task, CpuNotSaved(task.cpu))

            trace = super().trace(task, budget)
            self._forget()
            if self._stillness(task) == before:
                return trace
        return _nothing(task, RanMeanwhile())

    def _start(self, task: Task) -> WalkStart:
        """What a task was switched out with: who asks has seen that it is on no CPU."""
        return self._sleeping(task)

    def _stillness(self, task: Task) -> _Stillness | Reason:
        """How a task stands; why that cannot be told."""
        linux = self._linux
        try:
            values = [linux.member("task_struct", name, task.address) for name in _COMPARED]
            return _Stillness(self._is_on_cpu(task), *values)
        except MemoryFault as error:
            return StartUnreadable(str(error))

    def _is_on_cpu(self, task: Task) -> bool:
        if self._linux.types.has("task_struct", "on_cpu"):
            return self._linux.member("task_struct", "on_cpu", task.address) & 0xFFFF_FFFF != 0
        # A kernel for one CPU has no such member: what that CPU runs is `current`.
        self.__dict__.pop("_on_cpus", None)
        return task.address in self.running


def _nothing(task: Task, why: Reason) -> StackTrace:
    """What is said of a task that is not known to have stood still."""
    is_running = isinstance(why, CpuNotSaved)
    return StackTrace(task.address, task.pid, task.comm, task.cpu, is_running, "none", (), End.STOPPED, why)
