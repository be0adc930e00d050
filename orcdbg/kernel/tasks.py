"""Which tasks exist, and what do they say of themselves?"""

from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_memory_pieces, read_s32, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux

PF_KTHREAD = 0x0020_0000
# Of processes, and of threads: large machines run some 10^4. A snapshot with millions of false ones would take minutes in
# `ps` alone: each costs it some 15 us and 2 kB.
MAX_TASKS = 1 << 17
# Bits of task_struct.__state and exit_state with the two letters that crash shows (include/linux/sched.h).
_STATES = (
    (0x20, "ZO"),
    (0x10, "DE"),
    (0x01, "IN"),
    (0x04, "ST"),
    (0x08, "TR"),
    (0x40, "PA"),
    (0x80, "DE"),
    (0x200, "WA"),
)
_UNINTERRUPTIBLE, _NOLOAD, _NEW = 0x02, 0x400, 0x800
_KNOWN_STATES, _EXITED = 0xFFF, 0x30


class Sleep(enum.Enum):
    """How a task sleeps, by its state."""

    UNINTERRUPTIBLE = enum.auto()  # only what it waits for wakes it, or a deadly signal
    OTHERWISE = enum.auto()  # interruptible, idle, stopped, traced or parked


_SLEEPS: Mapping[str | None, Sleep] = {
    "UN": Sleep.UNINTERRUPTIBLE,
    **dict.fromkeys(("IN", "ID", "ST", "TR", "PA"), Sleep.OTHERWISE),
}


class Task(NamedTuple):
    """A task: `address` of its task_struct; what its memory or types do not tell is None.

    A tuple, since a kernel may have 10^5 of them, and one costs a quarter of what a frozen dataclass does.
    """

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

    @property
    def sleep(self) -> Sleep | None:
        """How it sleeps; None of one that runs, wants to run or has ended, and where its state is not known."""
        return _SLEEPS.get(self.state)


def _state_letters(state: int, exit_state: int) -> str:
    """The two letters; what bits beyond those known here say does not matter, but for that the task does not run."""
    return _letters(state & _KNOWN_STATES, exit_state & _EXITED, state == 0)


@functools.cache
def _letters(state: int, exit_state: int, runs: bool) -> str:
    if exit_state & 0x20:
        return "ZO"
    if exit_state & 0x10:
        return "DE"
    if runs:
        return "RU"
    if state & _UNINTERRUPTIBLE:
        return "ID" if state & _NOLOAD else "UN"
    return "NE" if state & _NEW else next((letters for bit, letters in _STATES if state & bit), "??")


class _Members(NamedTuple):
    """Members of a structure that lie close together, for one read of them all."""

    offset: int
    layout: struct.Struct
    names: tuple[str, ...]


# enum cpuhp_state (include/linux/cpuhotplug.h): of a CPU that is down, of whatever kernel.
_CPUHP_OFFLINE = 0
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_MORE_THREADS = 64  # than signal_struct.nr_threads has, while threads come and go
_MAX_GAP = 1024  # bytes between two members that are still read together
_MEMBERS = {
    "state": ("__state", "state"),
    "exit_state": ("exit_state",),
    "parent": ("real_parent",),
    "pid": ("pid",),
    "tgid": ("tgid",),
    "cpu": ("thread_info.cpu", "cpu"),
    "flags": ("flags",),
    "stack": ("stack",),
    "comm": ("comm",),
}


class TaskReader:
    """Reads tasks of one kernel, each with few reads.

    Raises:
        NotFound: the kernel's types have no pid or comm for a task.
    """

    def __init__(self, linux: Linux) -> None:
        self._memory = linux.memory
        types = linux.types
        found: list[tuple[int, int, str]] = []
        for name, paths in _MEMBERS.items():
            path = next((path for path in paths if types.has("task_struct", path)), None)
            if path is not None:
                size = types.size_of_member("task_struct", path)
                found.append((types.offset("task_struct", path), size if name == "comm" else min(size, 8), name))
            elif name in ("pid", "comm"):
                raise NotFound("member", f"task_struct.{name}")
        self._groups = list(_groups(sorted(found)))
        self._layouts = [group.layout for group in self._groups]
        read = [name for group in self._groups for name in group.names]
        absent = len(read)  # the place of the None that follows the values, for members that this kernel does not have
        self._fields = itemgetter(*(read.index(name) if name in read else absent for name in _MEMBERS))

    def read(self, address: int) -> Task:
        """The task whose task_struct is at `address`; MemoryFault where it cannot be read."""
        pieces = [self._memory.read(address + group.offset, group.layout.size) for group in self._groups]
        return self._task(address, pieces)

    def read_all(self, addresses: Sequence[int]) -> Iterator[Task | MemoryFault]:
        """Many tasks, with few reads of all of them together; for each that cannot be read, the fault."""
        groups = [
            read_memory_pieces(
                self._memory, [a + group.offset & U64 for a in addresses], [group.layout.size] * len(addresses)
            )
            for group in self._groups
        ]
        for address, *pieces in zip(addresses, *groups, strict=True):
            known = [piece for piece in pieces if piece is not None]
            try:
                yield self._task(address, known) if len(known) == len(pieces) else self.read(address)
            except MemoryFault as error:
                yield error

    def _task(self, address: int, pieces: Sequence[bytes]) -> Task:
        """A task from its groups of members."""
        values: list[Any] = []
        for layout, piece in zip(self._layouts, pieces, strict=True):
            values += layout.unpack(piece)
        values.append(None)
        state, exit_state, parent, pid, tgid, cpu, flags, stack, comm = self._fields(values)

        return Task(
            address,
            pid,
            tgid,
            comm.partition(b"\0")[0].decode("utf-8", "backslashreplace"),
            cpu,
            None if state is None else _state_letters(state & 0xFFFF_FFFF, exit_state or 0),
            flags or 0,
            stack or 0,
            parent,
        )


def _groups(members: list[tuple[int, int, str]]) -> Iterator[_Members]:
    """Members as (offset, size, name), in order of offset, by what is read together."""
    start, layout, names, end = 0, "", list[str](), 0
    for offset, size, name in members:
        if names and offset - end > _MAX_GAP:
            yield _Members(start, struct.Struct("<" + layout), tuple(names))
            layout, names = "", []
        if not names:
            start = end = offset
        code = f"{size}s" if name == "comm" else _CODES[size]
        layout += f"{offset - end}x{code}"
        names.append(name)
        end = offset + size
    if names:
        yield _Members(start, struct.Struct("<" + layout), tuple(names))


def read_task(linux: Linux, address: int) -> Task:
    """The task whose task_struct is at `address`; MemoryFault where it cannot be read."""
    return TaskReader(linux).read(address)


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


def started_cpus(linux: Linux) -> list[int]:
    """Numbers of the CPUs that the kernel runs on: those that are online, and those that a panic stopped.

    The panic takes each CPU that it stops from the mask (stop_this_cpu() of arch/x86/kernel/process.c), without any of what
    hotplug does: its tasks, queues and caches stay where they are. Hotplug's own state tells the two apart, of a CPU that was
    taken down, or never came up, it is CPUHP_OFFLINE (since 4.6, cff7d378d3fd).
    """
    online = online_cpus(linux)
    if not linux.types.has("cpuhp_cpu_state", "state"):
        return online

    def was_left_on(cpu: int) -> bool:
        try:
            place = linux.per_cpu("cpuhp_state", cpu)
            return place is not None and linux.member("cpuhp_cpu_state", "state", place) != _CPUHP_OFFLINE
        except MemoryFault:
            return False

    known = set(online)
    return [cpu for cpu in range(linux.cpu_limit()) if cpu in known or was_left_on(cpu)]


def panic_cpu(linux: Linux) -> int | None:
    """The CPU that panicked, or None. See panic() of kernel/panic.c, and __crash_kexec() for the second name."""
    for name in ("panic_cpu", "crashing_cpu"):
        try:
            address = linux.find_address(name)
            cpu = -1 if address is None else read_s32(linux.memory, address)
        except MemoryFault:
            continue
        if 0 <= cpu < linux.cpu_limit():
            return cpu
    return None


def idle_tasks(linux: Linux, budget: Budget) -> Iterator[int]:
    """Addresses of the swapper tasks of the CPUs that the kernel runs on; what cannot be read is the budget's."""
    if not linux.types.has("rq", "idle"):
        return
    try:
        cpus = started_cpus(linux)
    except OrcdbgError as error:
        budget.note_error("the number of CPUs", linux.find_address("nr_cpu_ids") or 0, error)
        return

    for cpu in cpus:
        queue = None
        try:
            queue = linux.per_cpu("runqueues", cpu)
            if queue is not None:
                yield linux.member("rq", "idle", queue)
        except OrcdbgError as error:
            budget.note_error(f"the run queue of CPU {cpu}", queue or 0, error)


def _threads(linux: Linux, leader: int, budget: Budget) -> Iterator[int]:
    """A thread group's tasks, the leader first."""
    yield leader
    try:
        signal = linux.member("task_struct", "signal", leader)
        count = linux.first_member("signal_struct", ("nr_threads",), signal)
        head = signal + linux.types.offset("signal_struct", "thread_head")
        # One group whose list leads into false memory must not cost the threads of all others: the kernel counts them.
        share = budget.share(budget.left if count is None else _MORE_THREADS + 2 * (count & 0x7FFF_FFFF))
        others = linux.walk_list(head, "task_struct", "thread_node", share)
        yield from (task for task in others if task != leader)
        budget.settle(share)
    except (NotFound, MemoryFault):
        return


def all_task_addresses(linux: Linux, budget: Budget) -> Iterator[int]:
    """Addresses of all tasks: the swappers, then thread groups in the kernel's order.

    Args:
        linux: the kernel.
        budget: has what ended a list early. The list of groups draws on it, and those of all threads on as much again.
    """
    init = linux.address("init_task")
    seen: set[int] = set()
    for address in (init, *idle_tasks(linux, budget)):
        if address not in seen:
            seen.add(address)
            yield address
    threads = Budget(budget.limit)
    groups = linux.walk_list(init + linux.types.offset("task_struct", "tasks"), "task_struct", "tasks", budget)
    for leader in groups:
        # Where false threads took all there was, each of 10^5 false leaders still cost some 40 us to learn that.
        is_spent = not threads.left and not threads.spare
        for address in (leader,) if is_spent else _threads(linux, leader, threads):
            if address not in seen:
                seen.add(address)
                yield address
    budget.settle(threads)


def list_tasks(linux: Linux) -> tuple[list[Task], list[str]]:
    """All tasks that can be read, and a line for each that cannot or for a list that breaks off."""
    tasks: list[Task] = []
    addresses: list[int] = []
    problems: list[str] = []
    budget = Budget(MAX_TASKS)
    try:
        addresses.extend(all_task_addresses(linux, budget))
        broken = budget.lines()
    except OrcdbgError as error:
        broken = [*budget.lines(), str(error)]
    for address, found in zip(addresses, TaskReader(linux).read_all(addresses), strict=True):
        if isinstance(found, Task):
            tasks.append(found)
        else:
            problems.append(f"task {address:#x}: {found}")
    return tasks, [*problems, *(f"the task list breaks off: {line}" for line in broken)]
