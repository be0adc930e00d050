"""What does a task say of its memory, its times, its arguments and its last turn on a CPU?

Mirrors fs/proc/array.c, fs/proc/base.c, include/linux/sched.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.reading import AddressSpace, read_memory_pieces, signed
from orcdbg.base.sizes import PAGE, U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.tasks import Task, started_cpus
from orcdbg.subsystems.containers import lists
from orcdbg.subsystems.memory_maps import RESIDENT_KINDS
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# Processes with memory of their own whose sizes are shown: large machines run some 10^4.
MAX_SPACES = 1 << 16
# Of a command line or an environment; longer ones are cut there.
MAX_WORDS = 64 << 10
# By their numbers (include/uapi/asm-generic/resource.h).
_LIMITS = (
    *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE"),
    *("MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
)


@dataclass(frozen=True, slots=True)
class MemorySizes:
    """Bytes of a task's user memory: `mapped` all of it, `resident` what is in memory, None where that is not known."""

    mapped: int
    resident: int | None


@dataclass(frozen=True, slots=True)
class Times:
    """A task's times in nanoseconds: `started` since boot, `user` and `system` on a CPU."""

    started: int
    user: int
    system: int


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit, None where there is none: `current` holds, up to `maximum` the process may raise it itself."""

    name: str
    current: int | None
    maximum: int | None


def memory_sizes(program: Program, tasks: Sequence[Task]) -> Mapping[int, MemorySizes]:
    """The sizes of the user memory of tasks, by the task's address; tasks without, and such as cannot be read, are left out.

    All are read together: one by one, those of 20,000 tasks would take minutes, and those of a snapshot full of false ones
    hours.
    """
    offset = program.linux.types.offset("task_struct", "mm")
    spaces = _words_at(program, [task.address + offset for task in tasks])
    distinct = list(dict.fromkeys(space for space in spaces if space))[:MAX_SPACES]
    sizes = dict(zip(distinct, _sizes(program, distinct), strict=True))
    found = {}
    for task, space in zip(tasks, spaces, strict=True):
        size = sizes.get(space or 0)
        if size is not None:
            found[task.address] = size
    return found


def _words_at(program: Program, addresses: Sequence[int]) -> list[int | None]:
    """A word at each address, None where memory is not there."""
    pieces = read_memory_pieces(program.memory, [address & U64 for address in addresses], [8] * len(addresses))
    return [None if piece is None else int.from_bytes(piece, "little") for piece in pieces]


def _sizes(program: Program, spaces: Sequence[int]) -> list[MemorySizes | None]:
    """The sizes of `mm_struct`s; None of one that cannot be read."""
    layout = program.object("struct mm_struct", 0)
    totals = _words_at(program, [space + (layout.member_("total_vm").address_ or 0) for space in spaces])
    resident = _resident(program, layout, spaces)
    return [
        None if total is None else MemorySizes(total * PAGE, None if pages is None else pages * PAGE)
        for total, pages in zip(totals, resident, strict=True)
    ]


def _resident(program: Program, layout: Object, spaces: Sequence[int]) -> list[int | None]:
    """Pages in memory by each `mm_struct`, as `memory_maps.resident_pages` counts them."""
    counters = layout.first_of_("rss_stat.count", "rss_stat")
    if counters is None:
        return [None] * len(spaces)
    kinds = [counters[number] for number in RESIDENT_KINDS]
    totals: list[int | None] = [0] * len(spaces)

    def add(numbers: Iterable[int | None], bits: int) -> None:
        for place, number in enumerate(numbers):
            total = totals[place]
            totals[place] = None if total is None or number is None else total + signed(number & (1 << bits) - 1, bits)

    for kind in kinds:
        # Since 6.2 (f1a7941243c1) each is a percpu_counter.
        count = kind.first_of_("count", "counter")
        assert count is not None
        add(_words_at(program, [space + (count.address_ or 0) for space in spaces]), 64)
        if not kind.has_member_("counters"):
            continue
        parts = _words_at(program, [space + (kind.member_("counters").address_ or 0) for space in spaces])
        for cpu in started_cpus(program.linux):
            per_cpu = program.linux.per_cpu_offset(cpu)
            add(_words_at(program, [(part or 0) + per_cpu for part in parts]), 32)
    return [None if total is None else max(total, 0) for total in totals]


def times(task: Object) -> Times:
    """The times of a task.

    Raises:
        MemoryFault: they cannot be read.
    """
    # Since 5.5 (cf25e24db61c) start_boottime, which real_start_time was called before.
    started = task.first_of_("start_boottime", "real_start_time", "start_time")
    return Times(0 if started is None else int(started), int(task.member_("utime")), int(task.member_("stime")))


def limits(task: Object) -> list[Limit]:
    """The resource limits of a task's process; none of one that ended.

    Raises:
        MemoryFault: they cannot be read.
    """
    process = task.member_("signal")
    if not int(process):
        return []
    rows = process.member_("rlim")
    numbers = [(int(row.member_("rlim_cur")), int(row.member_("rlim_max"))) for row in rows]
    return [
        Limit(name, *(None if number == U64 else number for number in pair))
        for name, pair in zip(_LIMITS, numbers, strict=False)
    ]


def last_arrival(task: Object) -> int | None:
    """When the task last came on a CPU, in nanoseconds of the scheduler's clock; None where the kernel does not keep that."""
    found = task.first_of_("sched_info.last_arrival")
    return None if found is None else int(found)


def kernel_stack_pointer(task: Object) -> int:
    """Where the stack pointer of a task that sleeps is saved: thread.sp."""
    return int(task.member_("thread.sp"))


def children(task: Object, budget: Budget) -> Iterable[Object]:
    """The processes that a task made, and that are its own still."""
    return lists.entries(task.member_("children"), "task_struct", "sibling", budget)


def arguments(space: Object, memory: AddressSpace) -> list[str]:
    """The words that a program was started with.

    Args:
        space: the `mm_struct`.
        memory: the task's user memory.

    Raises:
        MemoryFault: they are not in memory.
    """
    return _words(space, memory, "arg_start", "arg_end")


def environment(space: Object, memory: AddressSpace) -> list[str]:
    """The environment that a program was started with; as `arguments`."""
    return _words(space, memory, "env_start", "env_end")


def _words(space: Object, memory: AddressSpace, start: str, end: str) -> list[str]:
    first = int(space.member_(start))
    size = min(max(int(space.member_(end)) - first, 0), MAX_WORDS)
    data = memory.read(first, size).rstrip(b"\0") if size else b""
    return [word.decode("utf-8", "backslashreplace") for word in data.split(b"\0")] if data else []
