"""Which areas of the vmalloc space are taken, by whom?

Mirrors mm/vmalloc.c, vmalloc_info_show().
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux

# Each stack of a task is one, each module, each BPF program.
MAX_AREAS = 1 << 20
MAX_NODES = 128  # nr_vmap_nodes is at most that (6.9)
# include/linux/vmalloc.h, as /proc/vmallocinfo writes them.
_FLAGS = ((0x1, "ioremap"), (0x2, "vmalloc"), (0x4, "vmap"), (0x8, "user"), (0x10, "dma-coherent"))


@dataclass(frozen=True, slots=True)
class VmallocArea:
    """A taken area of the vmalloc space.

    Attributes:
        area: address of the `vmap_area`.
        start: its first address.
        end: the first address behind it, a guard page among it where it has one.
        vm: address of the `vm_struct`; 0 of an area that vm_map_ram() made.
        flags: of the `vm_struct`.
        kinds: their names, as in /proc/vmallocinfo.
        pages: how many pages it has; 0 where it keeps none.
        physical: the physical address that ioremap() mapped; 0 without.
        caller: the address in the code that asked for it; 0 without.
    """

    area: int
    start: int
    end: int
    vm: int
    flags: int
    kinds: tuple[str, ...]
    pages: int
    physical: int
    caller: int


class VmallocAreas:
    """The taken areas of one kernel, by address.

    Args:
        linux: the kernel.

    Attributes:
        areas: all of them.
        problems: what could not be read.
    """

    def __init__(self, linux: Linux) -> None:
        self._linux = linux
        budget = Budget(MAX_AREAS)
        found = []
        for address in self._addresses(budget):
            try:
                found.append(self._read(address))
            except OrcdbgError as error:
                budget.note_error("a vmalloc area", address, error)
        self.areas: Sequence[VmallocArea] = sorted(found, key=lambda area: area.start)
        self.problems: Sequence[str] = budget.lines()
        self._starts = [area.start for area in self.areas]

    def _addresses(self, budget: Budget) -> Iterator[int]:
        """Addresses of the `vmap_area`s."""
        linux = self._linux
        nodes = linux.find_address("vmap_nodes")
        if nodes is None:
            yield from linux.walk_list(linux.address("vmap_area_list"), "vmap_area", "list", budget)
            return
        # Since 6.9 (d093602919ad, 72210662c5a2) areas are spread over nodes, by their addresses.
        first = read_u64(linux.memory, nodes)
        where = linux.find_address("nr_vmap_nodes")
        count = 1 if where is None else int.from_bytes(linux.memory.read(where, 4), "little")
        size = linux.types.size("vmap_node")
        head = linux.types.offset("vmap_node", "busy.head")
        for number in budget.entries(min(count, MAX_NODES), first, "nodes of vmalloc areas"):
            yield from linux.walk_list(first + number * size + head, "vmap_area", "list", budget)

    def _read(self, address: int) -> VmallocArea:
        member = self._linux.member
        start, end = member("vmap_area", "va_start", address), member("vmap_area", "va_end", address)
        vm = member("vmap_area", "vm", address)
        if not vm:
            return VmallocArea(address, start, end, 0, 0, ("vm_map_ram",), 0, 0, 0)
        flags = member("vm_struct", "flags", vm)
        return VmallocArea(
            address,
            start,
            end,
            vm,
            flags,
            tuple(name for bit, name in _FLAGS if flags & bit),
            member("vm_struct", "nr_pages", vm),
            member("vm_struct", "phys_addr", vm),
            member("vm_struct", "caller", vm),
        )

    def at(self, address: int) -> VmallocArea | None:
        """The area that holds an address; None in a hole."""
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0 or address >= self.areas[place].end:
            return None
        return self.areas[place]
