"""Which tasks exist, and what do they say of themselves?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.kernel.linux import Linux

PF_KTHREAD = 0x0020_0000
# Bits of task_struct.__state and exit_state with the two letters that crash shows (include/linux/sched.h).
_STATES = ((0x20, "ZO"), (0x10, "DE"), (0x01, "IN"), (0x04, "ST"), (0x08, "TR"), (0x40, "PA"))
_UNINTERRUPTIBLE, _NOLOAD, _NEW = 0x02, 0x400, 0x800


@dataclass(frozen=True, slots=True)
class Task:
    """A task: `address` of its task_struct; what its memory or types do not tell is None."""

    address: int
    pid: int
    tgid: int | None
    comm: str
    cpu: int | None
    state: str | None
    flags: int
    stack: int
    parent: int | None

    @property
    def is_kernel_thread(self) -> bool:
        """True for a thread that never has a user part; swapper tasks included."""
        return bool(self.flags & PF_KTHREAD) or self.pid == 0


def _state_letters(state: int, exit_state: int) -> str:
    if exit_state & 0x20:
        return "ZO"
    if exit_state & 0x10:
        return "DE"
    if state == 0:
        return "RU"
    if state & _UNINTERRUPTIBLE:
        return "ID" if state & _NOLOAD else "UN"
    return "NE" if state & _NEW else next((letters for bit, letters in _STATES if state & bit), "??")


def read_task(linux: Linux, address: int) -> Task:
    """The task whose task_struct is at `address`; MemoryFault where it cannot be read."""
    state = linux.first_member("task_struct", ("__state", "state"), address)
    exit_state = linux.first_member("task_struct", ("exit_state",), address) or 0
    parent = linux.first_member("task_struct", ("real_parent",), address)
    return Task(
        address=address,
        pid=linux.member("task_struct", "pid", address),
        tgid=linux.first_member("task_struct", ("tgid",), address),
        comm=linux.text_member("task_struct", "comm", address),
        cpu=linux.first_member("task_struct", ("thread_info.cpu", "cpu"), address),
        state=None if state is None else _state_letters(state & 0xFFFF_FFFF, exit_state),
        flags=linux.first_member("task_struct", ("flags",), address) or 0,
        stack=linux.first_member("task_struct", ("stack",), address) or 0,
        parent=parent,
    )


def current_task(linux: Linux, cpu: int) -> int | None:
    """Address of the task that a CPU runs, by its own `current` pointer (not rq->curr, which changes before the stack)."""
    address = linux.per_cpu("current_task", cpu)
    if address is None:
        hot = linux.per_cpu("pcpu_hot", cpu)
        if hot is None:
            return None
        address = hot + linux.types.offset("pcpu_hot", "current_task")
    try:
        return read_u64(linux.memory, address)
    except MemoryFault:
        return None


def online_cpus(linux: Linux) -> list[int]:
    """Numbers of the CPUs that are online; of all possible ones where the kernel's mask cannot be read."""
    limit = linux.cpu_limit()
    mask = linux.find_address("__cpu_online_mask")
    if mask is None:
        return list(range(limit))
    try:
        bits = int.from_bytes(linux.memory.read(mask, (limit + 63) // 64 * 8), "little")
    except MemoryFault:
        return list(range(limit))
    return [cpu for cpu in range(limit) if bits >> cpu & 1]


def idle_tasks(linux: Linux) -> Iterator[int]:
    """Addresses of the swapper tasks of the CPUs that are online."""
    for cpu in online_cpus(linux):
        queue = linux.per_cpu("runqueues", cpu)
        if queue is not None and linux.types.has("rq", "idle"):
            yield linux.member("rq", "idle", queue)


def _threads(linux: Linux, leader: int) -> Iterator[int]:
    """A thread group's tasks, the leader first."""
    yield leader
    try:
        head = linux.member("task_struct", "signal", leader) + linux.types.offset("signal_struct", "thread_head")
        yield from (task for task in linux.walk_list(head, "task_struct", "thread_node") if task != leader)
    except (NotFound, MemoryFault):
        return


def all_task_addresses(linux: Linux) -> Iterator[int]:
    """Addresses of all tasks: the swappers, then thread groups in the kernel's order."""
    init = linux.address("init_task")
    seen: set[int] = set()
    for address in (init, *idle_tasks(linux)):
        if address not in seen:
            seen.add(address)
            yield address
    for leader in linux.walk_list(init + linux.types.offset("task_struct", "tasks"), "task_struct", "tasks"):
        for address in _threads(linux, leader):
            if address not in seen:
                seen.add(address)
                yield address


def list_tasks(linux: Linux) -> tuple[list[Task], list[str]]:
    """All tasks that can be read, and a line for each that cannot or for a list that breaks off."""
    tasks: list[Task] = []
    problems: list[str] = []
    try:
        for address in all_task_addresses(linux):
            try:
                tasks.append(read_task(linux, address))
            except MemoryFault as error:
                problems.append(f"task {address:#x}: {error}")
    except OrcdbgError as error:
        problems.append(f"the task list breaks off: {error}")
    return tasks, problems
