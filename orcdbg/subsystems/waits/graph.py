"""Who waits for whom in a stopped kernel, since when, and how sure is that?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orcdbg.base.certainty import weakest
from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.kernel.tasks import Task, online_cpus
from orcdbg.subsystems.kernel_variables import per_cpu_variable
from orcdbg.subsystems.waits.locks import Lock, LockHolder, Locks
from orcdbg.subsystems.waits.model import Edge, EvidenceKind, Graph, WaitKind
from orcdbg.subsystems.waits.rings import KnownTasks
from orcdbg.subsystems.waits.sleeping import FindText, SleepFinder, SleepingTask, Wait
from orcdbg.typed.program import Program

# Nodes of lists of waiters, for all tasks together: each is walked once.
MAX_WAITERS = 1 << 18


@dataclass(frozen=True, slots=True)
class _Clock:
    """A run queue's clocks in nanoseconds: `task` accounts for tasks, `ahead` is how far the latest of all is ahead."""

    task: int
    ahead: int


class WaitReader:
    """Reads who waits for whom.

    Args:
        program: the kernel.
        tasks: all tasks.
        is_text: whether an address is in code.
    """

    def __init__(self, program: Program, tasks: Sequence[Task], is_text: FindText) -> None:
        self.budget = Budget(MAX_WAITERS)
        self._program = program
        known = KnownTasks(program.linux, tasks)
        self._locks = Locks(program, known, self.budget)
        self._finder = SleepFinder(program, known, self._locks, is_text, self.budget)
        self._clocks = self._read_clocks()

    def lock(self, kind: WaitKind, address: int) -> Lock:
        """The state of a lock or completion; errors as of `Locks.lock`."""
        return self._locks.lock(kind, address)

    def graph(self, sleepers: Iterable[SleepingTask]) -> Graph:
        """The edges of some tasks that are switched out; those whose wait is not to be found are `unexplained`."""
        edges: list[Edge] = []
        unexplained = []
        for sleeper in sleepers:
            try:
                wait = self._finder.find(sleeper)
            except OrcdbgError as error:
                self.budget.note_error(f"what task {sleeper.task.pid} waits for", sleeper.task.address, error)
                wait = None
            if wait is None:
                unexplained.append(sleeper.task.address)
            else:
                edges += self._edges(sleeper.task, wait)
        return Graph(tuple(edges), tuple(unexplained), tuple(self.budget.lines()))

    def _edges(self, task: Task, wait: Wait) -> list[Edge]:
        since, age = self._asleep(task)
        found = []
        for holder in self._holders(task, wait):
            is_handed_over = holder is not None and holder.evidence.kind is EvidenceKind.HANDED_OVER
            to = None if holder is None or (is_handed_over and holder.task == task.address) else holder.task
            certainty = wait.certainty if holder is None or to is None else weakest((wait.certainty, holder.certainty))
            if holder is None and wait.holder is not None:
                to, certainty = wait.holder, weakest((wait.certainty, wait.holder_certainty))
            evidence = wait.evidence if holder is None else (*wait.evidence, holder.evidence)
            found.append(
                Edge(
                    task.address,
                    wait.object,
                    wait.kind,
                    to,
                    certainty,
                    wait.certainty,
                    since,
                    age,
                    wait.mode,
                    wait.bit,
                    wait.function,
                    evidence,
                )
            )
        return found

    def _holders(self, task: Task, wait: Wait) -> Sequence[LockHolder | None]:
        """Who has what a task waits for, by the lock; None where it is no lock, or cannot be read."""
        if wait.object is None or not wait.kind.is_lock:
            return (None,)
        try:
            return self._locks.lock(wait.kind, wait.object).holders or (None,)
        except OrcdbgError as error:
            self.budget.note_error(f"the {wait.kind.value} that task {task.pid} waits for", wait.object, error)
            return (None,)

    # Since when

    def _read_clocks(self) -> dict[int, _Clock]:
        """The clocks of each CPU's run queue. That of an idle CPU stands still."""
        found: dict[int, tuple[int, int]] = {}
        for cpu in online_cpus(self._program.linux):
            try:
                queue = per_cpu_variable(self._program, "runqueues", "struct rq", cpu)
                found[cpu] = int(queue.member_("clock_task")), int(queue.member_("clock"))
            except OrcdbgError as error:
                self.budget.note_error(f"the run queue of CPU {cpu}", 0, error)
        latest = max((clock for _, clock in found.values()), default=0)
        return {cpu: _Clock(task, latest - clock) for cpu, (task, clock) in found.items()}

    def _asleep(self, task: Task) -> tuple[int | None, int | None]:
        """When a task went to sleep, and how long ago that is.

        `se.exec_start` is when it was last accounted for, by clock_task of its run queue: when it left its CPU.
        """
        try:
            since = int(self._program.object("task_struct", task.address).member_("se.exec_start"))
        except OrcdbgError:
            return None, None
        clock = self._clocks.get(-1 if task.cpu is None else task.cpu)
        if not since:
            return None, None
        age = None if clock is None else clock.task - since + clock.ahead
        return since, age if age is None or age >= 0 else None
