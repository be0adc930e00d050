"""What does each CPU run, and which tasks wait for it?

Mirrors kernel/sched/sched.h, kernel/sched/fair.c, kernel/sched/rt.c, kernel/sched/deadline.c.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget, Tree
from orcdbg.kernel.tasks import current_task, started_cpus
from orcdbg.subsystems.containers import lists, rbtree
from orcdbg.subsystems.kernel_variables import bits_of, per_cpu_variable
from orcdbg.subsystems.task_details import last_arrival
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

MAX_QUEUED = 1 << 18
_RT_PRIORITIES = 100


class SchedulingClass(enum.Enum):
    """Whose queue a task waits in; the values are the JSON contract's words."""

    FAIR = "fair"
    REAL_TIME = "real-time"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Queued:
    """A task that waits for a CPU.

    Attributes:
        task: address of its task_struct.
        pid: of the task.
        comm: its name.
        scheduling_class: whose queue it is in.
        priority: task_struct.prio, smaller is more urgent.
        virtual_runtime: of a fair task.
        deadline: of a fair task by EEVDF, in virtual time; of a deadline task in nanoseconds; None where there is none.
        is_delayed: it sleeps, and only waits for its lag to be worked off (6.12).
        group: address of the task group that it is in.
        arrival: when it last came on a CPU, in nanoseconds of that CPU's clock; None where the kernel does not keep that.
    """

    task: int
    pid: int
    comm: str
    scheduling_class: SchedulingClass
    priority: int
    virtual_runtime: int | None
    deadline: int | None
    is_delayed: bool
    group: int | None
    arrival: int | None


@dataclass(frozen=True, slots=True)
class RunQueue:
    """A CPU's run queue.

    Attributes:
        cpu: its number.
        address: of the `struct rq`.
        running: rq->nr_running, with the task that runs unless that is the idle task.
        current: address, pid and name of the task that runs; None where it cannot be read.
        clock: rq->clock in nanoseconds.
        current_arrival: when the current task last came on a CPU, as of a queued one.
        current_start: the clock when the current task was last accounted for, exec_start; None of the idle task.
        queued: tasks that wait, the most urgent class first.
    """

    cpu: int
    address: int
    running: int
    current: tuple[int, int, str] | None
    clock: int
    current_start: int | None
    current_arrival: int | None
    queued: list[Queued]


def run_queues(program: Program, budget: Budget) -> list[RunQueue]:
    """The run queues of all CPUs that the kernel runs on; what cannot be read is the budget's."""
    found = []
    for cpu in started_cpus(program.linux):
        try:
            found.append(_run_queue(program, cpu, budget))
        except OrcdbgError as error:
            budget.note_error(f"the run queue of CPU {cpu}", 0, error)
    return found


def _run_queue(program: Program, cpu: int, budget: Budget) -> RunQueue:
    queue = per_cpu_variable(program, "runqueues", "struct rq", cpu)
    address = current_task(program.linux, cpu)
    current, start, arrival = None, None, None
    if address:
        try:
            task = program.object("task_struct", address)
            current = address, int(task.member_("pid")), task.member_("comm").string_()
            arrival = last_arrival(task)
            # The idle task is never accounted for.
            start = int(task.member_("se.exec_start")) if address != int(queue.member_("idle")) else None
        except OrcdbgError as error:
            budget.note_error(f"what CPU {cpu} runs", address, error)
    queued = [*_deadline(queue, budget), *_real_time(queue, budget), *_fair(queue, budget)]
    return RunQueue(
        cpu,
        queue.address_ or 0,
        int(queue.member_("nr_running")),
        current,
        int(queue.member_("clock")),
        start,
        arrival,
        # The kernel leaves a running real-time task in its queue.
        [one for one in queued if one.task != address],
    )


def _queued(task: Object, kind: SchedulingClass, group: int | None, budget: Budget) -> Iterator[Queued]:
    """The task, unless it cannot be read."""
    try:
        entity = task.member_("se")
        deadline = None
        if kind is SchedulingClass.DEADLINE:
            deadline = int(task.member_("dl.deadline"))
        elif kind is SchedulingClass.FAIR and entity.has_member_("deadline"):
            # Since 6.6 (147f3efaa241) the fair class picks by virtual deadline.
            deadline = int(entity.member_("deadline"))
        delayed = entity.first_of_("sched_delayed")
        yield Queued(
            task.address_ or 0,
            int(task.member_("pid")),
            task.member_("comm").string_(),
            kind,
            int(task.member_("prio")),
            int(entity.member_("vruntime")) if kind is SchedulingClass.FAIR else None,
            deadline,
            kind is SchedulingClass.FAIR and delayed is not None and bool(delayed),
            group,
            last_arrival(task),
        )
    except OrcdbgError as error:
        budget.note_error("a task that waits for a CPU", task.address_ or 0, error)


def _deadline(queue: Object, budget: Budget) -> Iterator[Queued]:
    for entity in rbtree.entries(queue.member_("dl.root"), "sched_dl_entity", "rb_node", budget):
        # A server (63ba8422f876, 6.8) stands for the fair tasks of its CPU and is in no task.
        if entity.has_member_("dl_server") and int(entity.member_("dl_server")):
            continue
        task = entity.address_of_().container_of_("task_struct", "dl").deref_()
        yield from _queued(task, SchedulingClass.DEADLINE, None, budget)


def _real_time(queue: Object, budget: Budget) -> Iterator[Queued]:
    array = queue.member_("rt.active")
    queues = array.member_("queue")
    for priority in bits_of(array.member_("bitmap"), min(len(queues), _RT_PRIORITIES)):
        for entity in lists.entries(queues[priority], "sched_rt_entity", "run_list", budget):
            # With CONFIG_RT_GROUP_SCHED an entity may be a group's; its queue is further down.
            if entity.has_member_("my_q") and int(entity.member_("my_q")):
                continue
            task = entity.address_of_().container_of_("task_struct", "rt").deref_()
            yield from _queued(task, SchedulingClass.REAL_TIME, None, budget)


def _fair(queue: Object, budget: Budget) -> Iterator[Queued]:
    """Tasks of the fair class, those of groups below the groups' entities."""
    program = queue.program_
    groups: dict[int, int] = {}
    found: dict[int, list[Object]] = {}

    def children_of(address: int) -> list[int]:
        inside = program.object("cfs_rq", address)
        entities = list(rbtree.entries(inside.member_("tasks_timeline"), "sched_entity", "run_node", budget))
        running = inside.member_("curr")
        if int(running):
            # The entity that runs is taken out of the tree.
            entities.append(running.deref_())
        found[address] = entities
        if inside.has_member_("tg"):
            groups[address] = int(inside.member_("tg"))
        below = [int(entity.member_("my_q")) for entity in entities if entity.has_member_("my_q")]
        return [one for one in below if one]

    top = queue.member_("cfs").address_ or 0
    for _ in Tree([top], children_of, budget, "the groups of a run queue"):
        pass
    for address, entities in found.items():
        for entity in entities:
            if entity.has_member_("my_q") and int(entity.member_("my_q")):
                continue
            task = entity.address_of_().container_of_("task_struct", "se").deref_()
            yield from _queued(task, SchedulingClass.FAIR, groups.get(address), budget)
