"""Which readers of a stopped kernel's memory management share what they have read?

Made on first use, once a stop: lists of slabs, of vmalloc areas and of stacks are read once, and answer in microseconds then.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orcdbg.base.errors import NotFound, OrcdbgError
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import Stack, StackKind, cpu_stacks, task_stack_size
from orcdbg.kernel.tasks import Task, started_cpus
from orcdbg.subsystems.address_map import MAX_PHYSICAL, AddressMap
from orcdbg.subsystems.pages import Pages
from orcdbg.subsystems.per_cpu_areas import PerCpuAreas
from orcdbg.subsystems.slab import SlabAllocator
from orcdbg.subsystems.user_memory import UserMemory
from orcdbg.subsystems.vmalloc import VmallocAreas

if TYPE_CHECKING:
    from orcdbg.target.session import Session


class MemoryParts:
    """What is known of memory management at one stop.

    Args:
        session: the stopped kernel.

    Each part raises an OrcdbgError where this kernel's memory does not have what it needs.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._linux: Linux = session.linux
        self._user: dict[int, UserMemory] = {}

    @functools.cached_property
    def places(self) -> AddressMap:
        """The areas of the address space."""
        return AddressMap(self._linux, self._session.placement.levels)

    @functools.cached_property
    def pages(self) -> Pages:
        """Page frames."""
        return Pages(self._session.program, self.places, self._memory_end)

    def _memory_end(self) -> int:
        """The first physical address behind all that the snapshot holds."""
        ranges = self._session.snapshot.ranges
        return MAX_PHYSICAL if ranges is None else max((end for _, end in ranges()), default=0)

    @functools.cached_property
    def slabs(self) -> SlabAllocator:
        """Slab caches and their objects."""
        return SlabAllocator(self.pages)

    @functools.cached_property
    def vmalloc(self) -> VmallocAreas:
        """The areas of the vmalloc space."""
        return VmallocAreas(self._linux)

    @functools.cached_property
    def per_cpu(self) -> PerCpuAreas:
        """Per-CPU memory."""
        return PerCpuAreas(self._linux, self._session.names)

    @functools.cached_property
    def _stacks(self) -> tuple[list[int], list[tuple[Stack, Task | None]]]:
        """All stacks by their lowest addresses, with the task of each that is a task's."""
        found = sorted(self._all_stacks(), key=lambda pair: pair[0].begin)
        return [stack.begin for stack, _ in found], found

    def _all_stacks(self) -> Iterator[tuple[Stack, Task | None]]:
        size = task_stack_size(self._linux)
        for task in self._session.tasks:
            if task.stack >> 63:
                yield Stack(StackKind.TASK, task.stack, task.stack + size, task=task.address), task
        for cpu in started_cpus(self._linux):
            try:
                for stack in cpu_stacks(self._linux, cpu):
                    yield stack, None
            except OrcdbgError:
                continue  # this CPU's are then no answer to any address; `bt` says what is wrong with them

    def stack_at(self, address: int) -> tuple[Stack, Task | None] | None:
        """The stack that holds an address, with its task; None where none does."""
        starts, stacks = self._stacks
        place = bisect.bisect_right(starts, address) - 1
        if place < 0 or not stacks[place][0].holds(address):
            return None
        return stacks[place]

    def user_memory(self, task: Task) -> UserMemory:
        """The memory of a task.

        Raises:
            NotFound: it has none.
            MemoryFault: its page table cannot be found.
        """
        if task.address not in self._user:
            session = self._session
            self._user[task.address] = UserMemory(
                session.program,
                session.object("task_struct", task.address),
                session.snapshot.physical,
                session.memory,
                self.places,
            )
        return self._user[task.address]

    def find_slabs(self) -> SlabAllocator | None:
        """As `slabs`; None where this kernel's allocator is another."""
        try:
            return self.slabs
        except NotFound:
            return None
