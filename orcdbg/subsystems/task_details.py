"""What does a task say of its memory, its times, its arguments and its last turn on a CPU?

Mirrors fs/proc/array.c, fs/proc/base.c, include/linux/sched.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import AddressSpace, read_memory_pieces
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.containers import lists
from orcdbg.subsystems.memory_maps import resident_pages
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# Of a command line or an environment; longer ones are cut there.
MAX_WORDS = 64 << 10


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


def memory_sizes(program: Program, tasks: Sequence[Task]) -> Mapping[int, MemorySizes]:
    """The sizes of the user memory of tasks, by the task's address; tasks without, and such as cannot be read, are left out."""
    offset = program.linux.types.offset("task_struct", "mm")
    pieces = read_memory_pieces(program.memory, [task.address + offset for task in tasks], [8] * len(tasks))
    sizes: dict[int, MemorySizes | None] = {0: None}
    found = {}
    for task, piece in zip(tasks, pieces, strict=True):
        if piece is None:
            continue
        address = int.from_bytes(piece, "little")
        if address not in sizes:
            # Threads share one: of 20,000 tasks few have their own.
            sizes[address] = _sizes(program.object("struct mm_struct", address))
        size = sizes[address]
        if size is not None:
            found[task.address] = size
    return found


def _sizes(space: Object) -> MemorySizes | None:
    try:
        pages = int(space.member_("total_vm"))
        resident = resident_pages(space)
    except OrcdbgError:
        return None
    return MemorySizes(pages * PAGE, None if resident is None else resident * PAGE)


def times(task: Object) -> Times:
    """The times of a task.

    Raises:
        MemoryFault: they cannot be read.
    """
    # Since 5.5 (cf25e24db61c) start_boottime, which real_start_time was called before.
    started = task.first_of_("start_boottime", "real_start_time", "start_time")
    return Times(0 if started is None else int(started), int(task.member_("utime")), int(task.member_("stime")))


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
