"""Which stretches of memory is a search to look at: all physical memory, the kernel's address space, a task's, all stacks?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.kernel.stacks import task_stack_size
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.memory_search import Run, mapped_runs
from orcdbg.subsystems.address_map import Region
from orcdbg.target.session import Session

# A range outside of the areas that lists tell of; its page tables are asked every 2 MiB.
MAX_RANGE = 1 << 36


def physical_runs(session: Session, start: int, end: int) -> Iterator[Run]:
    """All memory that the snapshot holds between two physical addresses.

    Raises:
        OrcdbgError: the snapshot's reader cannot say which memory there is.
    """
    snapshot = session.snapshot
    if snapshot.ranges is None:
        raise OrcdbgError(f"{snapshot.format}: its reader cannot say which memory there is, so it cannot be searched")
    for first, last in snapshot.ranges():
        low, high = max(first, start), min(last, end)
        if low < high:
            yield Run(low, low, high - low)


def kernel_runs(session: Session, start: int, end: int) -> Iterator[Run]:
    """The kernel's memory between two virtual addresses: direct map, vmalloc areas with modules, the image.

    Memory of vmalloc areas and of the image lies in the direct map as well, where the image's is left out.
    """
    places = session.kernel_memory.places
    yield from _direct_map(session, max(start, places.direct_map), min(end, places.direct_map + places.memory_end))
    for area in session.kernel_memory.vmalloc.areas:
        # What ioremap() mapped is devices', and in no snapshot.
        if "ioremap" not in area.kinds and area.end - area.start <= MAX_RANGE:
            yield from _clipped(session, area.start, area.end, start, end)
    first, last = session.names.image_range
    yield from _clipped(session, first, last, start, end)


def _clipped(session: Session, first: int, last: int, start: int, end: int) -> Iterator[Run]:
    low, high = max(first, start), min(last, end)
    if low < high:
        yield from mapped_runs(session.memory, low, high)


def _direct_map(session: Session, start: int, end: int) -> Iterator[Run]:
    places = session.kernel_memory.places
    base = places.direct_map
    if start >= end:
        return
    first, last = session.names.image_range
    image = session.memory.translate(first)
    holes = (image, image + last - first)
    for run in physical_runs(session, start - base, end - base):
        for low, high in ((run.physical, min(run.physical + run.size, holes[0])), (max(run.physical, holes[1]), run.physical + run.size)):
            if low < high:
                yield Run(base + low, low, high - low)


def range_runs(session: Session, start: int, end: int) -> Iterator[Run]:
    """What is mapped between two kernel addresses that the user names.

    Raises:
        UsageError: the range is neither in memory's own areas nor short enough to be asked for by page tables.
    """
    region = session.kernel_memory.places.region(start)
    if region in (Region.DIRECT_MAP, Region.VMALLOC, Region.MODULES, Region.IMAGE):
        yield from kernel_runs(session, start, end)
    elif end - start <= MAX_RANGE:
        yield from mapped_runs(session.memory, start, end)
    else:
        raise UsageError(f"more than {MAX_RANGE >> 30} GiB of address space", "give an end (-e) or a length (-l)")


def user_runs(session: Session, task: Task, start: int, end: int) -> Iterator[Run]:
    """What is in memory of a task's areas.

    Raises:
        NotFound: the task has no user memory.
    """
    memory = session.kernel_memory.user_memory(task)
    for first, last in memory.ranges:
        low, high = max(first, start), min(last, end)
        # An area may span terabytes, of which little is there.
        for block in range(low, high, MAX_RANGE):
            yield from memory.runs(block, min(block + MAX_RANGE, high))


def stack_runs(session: Session) -> Iterator[tuple[Task, list[Run]]]:
    """The stack of each task."""
    size = task_stack_size(session.linux)
    for task in session.tasks:
        if task.stack >> 63:
            yield task, list(mapped_runs(session.memory, task.stack, task.stack + size))
