"""Which tasks sleep on a wait queue?

Mirrors include/linux/wait.h, kernel/sched/wait.c; fs/select.c for those that poll.
"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

MAX_WAITERS = 1 << 18
WQ_FLAG_EXCLUSIVE = 0x01

# Functions of entries whose `private` is the task that sleeps.
_WAKE_TASK = (
    "default_wake_function",
    "autoremove_wake_function",
    "woken_wake_function",
    "wake_bit_function",
    "var_wake_function",
    "receiver_wake_function",
    "child_wait_callback",
    "ep_autoremove_wake_function",
    "rq_qos_wake_function",
    "wake_page_function",
    "userfaultfd_wake_function",
    "synchronous_wake_function",
)


@dataclass(frozen=True, slots=True)
class Waiter:
    """An entry of a wait queue.

    Attributes:
        entry: its address.
        function: address of what is called to wake it.
        is_exclusive: only one such entry is woken at a time.
        task: address of the task that sleeps; None where the entry is something else's, such as an epoll instance's.
        pid: of that task.
        comm: its name.
    """

    entry: int
    function: int
    is_exclusive: bool
    task: int | None
    pid: int | None
    comm: str | None


def waiters(head: Object, budget: Budget) -> list[Waiter]:
    """The entries of a wait queue.

    Args:
        head: the `wait_queue_head`.
        budget: what the walk draws on, and where problems go.
    """
    program = head.program_
    tasks = {program.linux.find_address(name) for name in _WAKE_TASK} - {None}
    polling = program.linux.find_address("pollwake")
    found = []
    for entry in lists.entries(head.member_("head"), "wait_queue_entry", "entry", budget):
        try:
            found.append(_waiter(entry, tasks, polling))
        except OrcdbgError as error:
            budget.note_error("an entry of a wait queue", entry.address_ or 0, error)
    return found


def _waiter(entry: Object, tasks: set[int | None], polling: int | None) -> Waiter:
    function = int(entry.member_("func"))
    private = int(entry.member_("private"))
    task: Object | None = None
    if function in tasks and private:
        task = entry.program_.object("task_struct", private)
    elif function == polling and private:
        # poll() and select() hang an entry on each file, which all name the table of the call.
        task = entry.program_.object("poll_wqueues", private).member_("polling_task").deref_()
    return Waiter(
        entry.address_ or 0,
        function,
        bool(int(entry.member_("flags")) & WQ_FLAG_EXCLUSIVE),
        None if task is None else task.address_,
        None if task is None else int(task.member_("pid")),
        None if task is None else task.member_("comm").string_(),
    )


def head_at(program: Program, address: int) -> Object:
    """The wait queue at an address."""
    return program.object("wait_queue_head", address)
