"""Which stretches of memory is a search to look at: all physical memory, the kernel's address space, a task's, all stacks?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget, WalkOutcome, WalkProblem
from orcdbg.kernel.stacks import task_stack_size
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.pagetables import MappedRun
from orcdbg.subsystems.address_map import Region
from orcdbg.target.session import Session

# Page tables of one search: they map 2 TiB by pages of 4 KiB.
MAX_TABLES = 1 << 20
# How often what the snapshot holds is looked at, on average: memory may be mapped more than once. Tables that lead to
# themselves, or all to the same ones, map each page as often as the address space is large.
_MAX_TIMES = 2
_SOME_TABLES = 1024


def held_bytes(session: Session) -> int | None:
    """How much memory the snapshot holds; None where its reader cannot tell."""
    ranges = session.snapshot.ranges
    return None if ranges is None else sum(end - start for start, end in ranges())


def table_budget(session: Session) -> Budget:
    """A budget of page tables for one search: each is a page, so that there are no more than the snapshot has pages."""
    held = held_bytes(session)
    return Budget(MAX_TABLES if held is None else min(held // PAGE + _SOME_TABLES, MAX_TABLES))


def no_more_than_held(session: Session, runs: Iterator[MappedRun], budget: Budget) -> Iterator[MappedRun]:
    """The runs, until they are some times as much as the snapshot holds; then a problem in the budget."""
    held = held_bytes(session)
    limit = left = MAX_TABLES * 512 * PAGE if held is None else held * _MAX_TIMES + _SOME_TABLES * PAGE
    for run in runs:
        left -= run.size
        if left < 0:
            budget.note(WalkProblem("bytes of mapped memory", WalkOutcome.SPENT, run.address, limit))
            return
        yield run


def physical_runs(session: Session, start: int, end: int) -> Iterator[MappedRun]:
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
            yield MappedRun(low, low, high - low)


def kernel_runs(session: Session, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
    """The kernel's memory between two virtual addresses: direct map, vmalloc areas with modules, the image.

    Memory of vmalloc areas lies in the direct map as well; that of the image is left out there.

    Args:
        session: the stopped kernel.
        start: the first address.
        end: the first one behind.
        budget: of page tables.
    """
    yield from direct_map_runs(session, start, end)
    yield from vmalloc_runs(session, start, end, budget)
    yield from image_runs(session, start, end, budget)


def direct_map_runs(session: Session, start: int, end: int) -> Iterator[MappedRun]:
    """The direct map's part of `kernel_runs`."""
    places = session.kernel_memory.places
    yield from _direct_map(session, max(start, places.direct_map), min(end, places.direct_map + places.memory_end))


def vmalloc_runs(session: Session, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
    """The vmalloc areas' part of `kernel_runs`, with modules; the budget is of page tables."""
    for area in session.kernel_memory.vmalloc.areas:
        # What ioremap() mapped is devices', and in no snapshot.
        if "ioremap" not in area.kinds:
            yield from _clipped(session, area.start, area.end, start, end, budget)


def image_runs(session: Session, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
    """The image's part of `kernel_runs`; the budget is of page tables."""
    first, last = session.names.image_range
    yield from _clipped(session, first, last, start, end, budget)


def _clipped(session: Session, first: int, last: int, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
    low, high = max(first, start), min(last, end)
    if low < high:
        yield from session.memory.runs(low, high, budget)


def _direct_map(session: Session, start: int, end: int) -> Iterator[MappedRun]:
    base = session.kernel_memory.places.direct_map
    if start >= end:
        return
    first, last = session.names.image_range
    image = session.memory.translate(first)
    image_end = image + last - first
    for run in physical_runs(session, start - base, end - base):
        behind = run.physical + run.size
        for low, high in ((run.physical, min(behind, image)), (max(run.physical, image_end), behind)):
            if low < high:
                yield MappedRun(base + low, low, high - low)


def range_runs(session: Session, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
    """What is mapped between two kernel addresses that the user names; the budget is of page tables."""
    # By ranges of the snapshot the direct map is searched without its page tables.
    if session.kernel_memory.places.region(start) is Region.DIRECT_MAP:
        yield from kernel_runs(session, start, end, budget)
    else:
        yield from session.memory.runs(start, end, budget)


def user_runs(session: Session, task: Task, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
    """What is in memory of a task's areas.

    Raises:
        NotFound: the task has no user memory.
    """
    memory = session.kernel_memory.user_memory(task)
    behind = start
    for first, last in memory.ranges:
        low, high = max(first, behind), min(last, end)
        if low < high:
            # Areas do not overlap; damaged ones are not searched once for each.
            behind = high
            yield from memory.runs(low, high, budget)


def stack_runs(session: Session, tasks: Iterable[Task], budget: Budget) -> Iterator[tuple[Task, list[MappedRun]]]:
    """The stack of each of these tasks; the budget is of page tables."""
    size = task_stack_size(session.linux)
    for task in tasks:
        if task.stack >> 63:
            yield task, list(session.memory.runs(task.stack, task.stack + size, budget))
