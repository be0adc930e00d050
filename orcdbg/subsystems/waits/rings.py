"""Which structures are linked in a ring with this one, and which of them are tasks that wait?"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace, read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, Chain, WalkOutcome
from orcdbg.kernel.linux import LinksBack, Linux
from orcdbg.kernel.stacks import task_stack_size
from orcdbg.kernel.tasks import Task

_LINKS = struct.Struct("<QQ")


class KnownTasks:
    """The tasks of the task list, and which addresses are on their stacks."""

    def __init__(self, linux: Linux, tasks: Sequence[Task]) -> None:
        self.by_address = {task.address: task for task in tasks}
        self.stack_size = task_stack_size(linux)

    def __contains__(self, address: int) -> bool:
        return address in self.by_address

    def is_on_stack(self, task: int, address: int) -> bool:
        """Whether an address is on the stack of that task, which is one of the list."""
        known = self.by_address.get(task)
        return known is not None and bool(known.stack) and 0 <= address - known.stack < self.stack_size


@dataclass(frozen=True, slots=True)
class Ring:
    """What is linked in a ring: `nodes` from the one asked for on; not `is_whole` where the way does not come back to it."""

    nodes: tuple[int, ...]
    is_whole: bool


class Rings:
    """Rings of `list_head`s, heads and entries alike, each walked once: a thousand waiters of a lock are on one."""

    def __init__(self, memory: AddressSpace, budget: Budget) -> None:
        self._memory = memory
        self._budget = budget
        self._known: dict[int, Ring] = {}

    def find(self, node: int) -> Ring | None:
        """The ring that a node is on; None where one of its neighbours does not lead back to it, so that it is on none."""
        known = self._known.get(node)
        if known is not None:
            return known

        try:
            following, previous = _LINKS.unpack(self._memory.read(node, 16))
            back, forth = read_u64(self._memory, following + 8 & U64), read_u64(self._memory, previous)
        except MemoryFault:
            return None
        if back != node or forth != node:
            return None

        ring = self._walked(node, following)
        for each in ring.nodes if ring.is_whole else (node,):
            self._known[each] = ring
        return ring

    def _walked(self, node: int, following: int) -> Ring:
        what = f"the list of waiters that {node:#x} is on"
        links = LinksBack(self._memory, node, self._budget, what)
        chain = Chain(following, links.next_of, self._budget, what, ends=(node,))
        nodes = (node, *chain)
        if chain.end is WalkOutcome.ENDED:
            links.end_at(node)
        return Ring(nodes, chain.end is WalkOutcome.ENDED and not links.is_broken)
