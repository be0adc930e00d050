"""Which work waits in the kernel's workqueues, and what do their workers do?

Mirrors kernel/workqueue.c, show_workqueue_state().
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists, xarray
from orcdbg.subsystems.kernel_variables import variable
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

MAX_WORK = 1 << 19
_LONGEST_NAME = 64
# WORK_STRUCT_PWQ: the work's data are the address of its pool_workqueue; WORK_STRUCT_LINKED: it belongs to the next work.
_HAS_QUEUE = 0x4
_FLAG_BITS = 8
# POOL_DISASSOCIATED, WORKER_IDLE (workqueue.c).
_WORKER_IDLE = 1 << 2


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A work item: `queue` names its workqueue, None where it does not say; `is_inactive` where that is at its limit."""

    address: int
    function: int
    queue: str | None
    is_inactive: bool


@dataclass(frozen=True, slots=True)
class Worker:
    """A thread of a pool: what it runs now, `work` and `function` 0 while it is idle."""

    address: int
    task: int
    pid: int
    comm: str
    is_idle: bool
    work: int
    function: int
    queue: str | None


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of workers: `cpu` -1 for one that is bound to no CPU; `nice` of its workers."""

    number: int
    address: int
    cpu: int
    nice: int | None
    workers: list[Worker]
    pending: list[WorkItem]


@dataclass(frozen=True, slots=True)
class Workqueue:
    """A workqueue: `active` works that are pending or run, by its pools; `inactive` those above its limit."""

    address: int
    name: str
    flags: int
    active: int
    inactive: list[WorkItem]


def pools(program: Program, budget: Budget) -> list[Pool]:
    """The pools of workers, by their number, with their workers and pending work."""
    found = []
    for entry in xarray.entries(variable(program, "worker_pool_idr", "struct idr"), budget):
        pool = program.object("worker_pool", entry.value)
        try:
            found.append(_pool(pool, budget))
        except OrcdbgError as error:
            budget.note_error(f"worker pool {entry.index}", entry.value, error)
    return found


def _pool(pool: Object, budget: Budget) -> Pool:
    attributes = pool.member_("attrs")
    return Pool(
        int(pool.member_("id")),
        pool.address_ or 0,
        int(pool.member_("cpu")),
        int(attributes.member_("nice")) if int(attributes) else None,
        list(_workers(pool, budget)),
        list(_works(pool.member_("worklist"), False, budget)),
    )


def _workers(pool: Object, budget: Budget) -> Iterator[Worker]:
    for worker in lists.entries(pool.member_("workers"), "worker", "node", budget):
        try:
            yield _worker(worker)
        except OrcdbgError as error:
            budget.note_error("a worker", worker.address_ or 0, error)


def _worker(worker: Object) -> Worker:
    task = worker.member_("task")
    queue = worker.member_("current_pwq")
    return Worker(
        worker.address_ or 0,
        int(task),
        int(task.member_("pid")) if int(task) else -1,
        task.member_("comm").string_() if int(task) else "",
        bool(int(worker.member_("flags")) & _WORKER_IDLE),
        int(worker.member_("current_work")),
        int(worker.member_("current_func")),
        _name_of(queue) if int(queue) else None,
    )


def _name_of(queue: Object) -> str:
    """The name of the workqueue of a `pool_workqueue`."""
    return queue.member_("wq").member_("name").string_(_LONGEST_NAME)


def _works(head: Object, is_inactive: bool, budget: Budget) -> Iterator[WorkItem]:
    for work in lists.entries(head, "work_struct", "entry", budget):
        try:
            yield WorkItem(work.address_ or 0, int(work.member_("func")), _queue_of(work), is_inactive)
        except OrcdbgError as error:
            budget.note_error("a work", work.address_ or 0, error)


def _queue_of(work: Object) -> str | None:
    """get_work_pwq(): the workqueue that a pending work names; None for a barrier that names none, or where it is not there."""
    data = int(work.member_("data.counter"))
    if not data & _HAS_QUEUE:
        return None
    try:
        address = data & -(1 << _FLAG_BITS) & 0xFFFF_FFFF_FFFF_FFFF
        return _name_of(work.program_.value("struct pool_workqueue *", address))
    except OrcdbgError:
        return None


def workqueues(program: Program, budget: Budget) -> list[Workqueue]:
    """All workqueues, in the kernel's order."""
    found = []
    for queue in lists.entries(variable(program, "workqueues", "struct list_head"), "workqueue_struct", "list", budget):
        try:
            found.append(_workqueue(queue, budget))
        except OrcdbgError as error:
            budget.note_error("a workqueue", queue.address_ or 0, error)
    return found


def _workqueue(queue: Object, budget: Budget) -> Workqueue:
    active, inactive = 0, []
    for part in lists.entries(queue.member_("pwqs"), "pool_workqueue", "pwqs_node", budget):
        try:
            active += int(part.member_("nr_active"))
            # Called delayed_works before 5.15 (f97a4a1a3f87); stable 5.10 has the later name.
            waiting = part.first_of_("inactive_works", "delayed_works")
            if waiting is not None:
                inactive += list(_works(waiting, True, budget))
        except OrcdbgError as error:
            budget.note_error("a pool_workqueue", part.address_ or 0, error)
    name = queue.member_("name").string_(_LONGEST_NAME)
    return Workqueue(queue.address_ or 0, name, int(queue.member_("flags")), active, inactive)
