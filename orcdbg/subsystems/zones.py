"""What do the memory zones hold: pages, free blocks, what CPUs keep, and how many pages of each kind?

Mirrors include/linux/mmzone.h, mm/vmstat.c (zoneinfo_show_print), mm/page_alloc.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64, signed
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.tasks import started_cpus
from orcdbg.typed.program import Program

MAX_NODES = 1024
# What CPUs keep of each zone, of all zones together: 16 nodes with 5 zones and 512 CPUs have 40,960.
MAX_ENTRIES = 1 << 18
_MAX_ITEMS = 256


@dataclass(frozen=True, slots=True)
class FreeBlocks:
    """The free blocks of one order in one zone.

    Attributes:
        order: a block has so many pages, as a power of 2.
        counted: how many there are by the kernel's counter, nr_free.
        lists: addresses of the `struct page` of each block's first page, by kind of migration; None where nobody walked them.
    """

    order: int
    counted: int
    lists: Mapping[str, tuple[int, ...]] | None


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone of memory.

    Attributes:
        address: of the `struct zone`.
        node: number of its memory node.
        name: `DMA`, `DMA32`, `Normal`, `Movable`, `Device`.
        start_pfn: its first page frame.
        spanned: page frames from there to its last one.
        present: those that are memory.
        managed: those that the page allocator has.
        counters: NR_... by name, without what CPUs have not handed in.
        per_cpu: pages that CPUs keep for themselves, by CPU.
        watermarks: min, low, high, in pages; empty where the kernel's are not known.
        free: free blocks by order.
    """

    address: int
    node: int
    name: str
    start_pfn: int
    spanned: int
    present: int
    managed: int
    counters: Mapping[str, int]
    per_cpu: Mapping[int, int]
    watermarks: tuple[int, ...]
    free: tuple[FreeBlocks, ...]

    @property
    def free_pages(self) -> int:
        """Pages in free blocks, by the counts of the blocks."""
        return sum(max(blocks.counted, 0) << blocks.order for blocks in self.free)


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """A NUMA node: `address` is that of its `pglist_data`."""

    number: int
    address: int
    start_pfn: int
    spanned: int
    present: int
    zones: tuple[Zone, ...]


def nodes_with_addresses(linux: Linux) -> Iterator[tuple[int, int]]:
    """Numbers, and addresses of the `pglist_data`, of the memory nodes that are online."""
    where = linux.find_address("node_data")
    if where is None:
        # Without CONFIG_NUMA there is one.
        yield 0, linux.address("contig_page_data")
        return
    count_at = linux.find_address("nr_node_ids")
    count = 1 if count_at is None else int.from_bytes(linux.memory.read(count_at, 4), "little")
    for number in range(min(count, MAX_NODES)):
        address = read_u64(linux.memory, where + 8 * number)
        if address:
            yield number, address


def nodes(program: Program, budget: Budget, blocks: Budget | None = None) -> list[MemoryNode]:
    """The memory nodes with their zones.

    Args:
        program: the kernel's typed data.
        budget: what the walks draw on, and where problems go.
        blocks: what the lists of free blocks draw on; None where they are not walked.
    """
    linux = program.linux
    found = []
    for number, address in nodes_with_addresses(linux):
        try:
            found.append(_node(program, number, address, budget, blocks))
        except OrcdbgError as error:
            budget.note_error(f"memory node {number}", address, error)
    return found


def _node(program: Program, number: int, address: int, budget: Budget, blocks: Budget | None) -> MemoryNode:
    linux = program.linux
    types = linux.types
    zones = []
    size = types.size("zone")
    first = address + types.offset("pglist_data", "node_zones")
    for index in range(min(types.array_length("pglist_data", "node_zones"), 16)):
        place = first + index * size
        try:
            if linux.member("zone", "spanned_pages", place):
                zones.append(_zone(program, number, place, budget, blocks))
        except OrcdbgError as error:
            budget.note_error(f"zone {index} of node {number}", place, error)
    member = linux.member
    return MemoryNode(
        number,
        address,
        member("pglist_data", "node_start_pfn", address),
        member("pglist_data", "node_spanned_pages", address),
        member("pglist_data", "node_present_pages", address),
        tuple(zones),
    )


def _zone(program: Program, node: int, address: int, budget: Budget, blocks: Budget | None) -> Zone:
    linux = program.linux
    member, types = linux.member, linux.types
    name = read_cstring(linux.memory, member("zone", "name", address), 32).decode("utf-8", "backslashreplace")
    marks = types.find("zone", "_watermark")
    count = min(types.array_length("zone", "_watermark"), 3) if marks is not None else 0
    return Zone(
        address,
        node,
        name,
        member("zone", "zone_start_pfn", address),
        member("zone", "spanned_pages", address),
        member("zone", "present_pages", address),
        member("zone", "managed_pages.counter", address),
        counters(program, "zone_stat_item", address + types.offset("zone", "vm_stat")),
        _per_cpu_pages(linux, address, budget),
        tuple(read_u64(linux.memory, address + marks.offset + 8 * i) for i in range(min(count, 3))) if marks else (),
        tuple(_free_blocks(program, address, blocks)),
    )


def _per_cpu_pages(linux: Linux, zone: int, budget: Budget) -> dict[int, int]:
    """Pages that each CPU keeps: of `per_cpu_pages` since 5.14 (28f836b6777b), of `per_cpu_pageset.pcp` before."""
    found = {}
    is_new = linux.types.has("zone", "per_cpu_pageset")
    path, struct, count = (
        ("per_cpu_pageset", "per_cpu_pages", "count") if is_new else ("pageset", "per_cpu_pageset", "pcp.count")
    )
    pointer = linux.member("zone", path, zone)
    for cpu in started_cpus(linux):
        if not budget.take("pages that CPUs keep", zone):
            break
        try:
            found[cpu] = signed(linux.member(struct, count, pointer + linux.per_cpu_offset(cpu) & U64), 32)
        except OrcdbgError as error:
            budget.note_error(f"pages that CPU {cpu} keeps", pointer, error)
    return found


def migrate_names(program: Program) -> list[str]:
    """The kinds of free lists, in their order: `Unmovable`, `Movable` ..."""
    names: dict[int, str] = {}
    for name, value in getattr(program.type("enum migratetype"), "enumerators", ()):
        word = name.removeprefix("MIGRATE_").lower()
        # The number of kinds that CPUs keep lists of is the number of the next kind, too.
        if name.startswith("MIGRATE_") and word not in ("pcptypes", "types"):
            names.setdefault(value, word)
    return [names[value] for value in sorted(names)]


def _free_blocks(program: Program, zone: int, blocks: Budget | None) -> Iterator[FreeBlocks]:
    linux = program.linux
    types = linux.types
    size = types.size("free_area")
    start = zone + types.offset("zone", "free_area")
    kinds = min(types.array_length("free_area", "free_list"), 16)
    names = migrate_names(program)
    link = "buddy_list" if types.has("page", "buddy_list") else "lru"
    for order in range(min(types.array_length("zone", "free_area"), 32)):
        area = start + order * size
        lists: dict[str, tuple[int, ...]] | None = None
        if blocks is not None:
            lists = {
                names[kind] if kind < len(names) else str(kind): tuple(
                    linux.walk_list(area + types.offset("free_area", "free_list") + 16 * kind, "page", link, blocks)
                )
                for kind in range(min(kinds, 16))
            }
        yield FreeBlocks(order, linux.member("free_area", "nr_free", area), lists)


def counters(program: Program, enumeration: str, address: int) -> dict[str, int]:
    """An array of atomic_long_t that an enumeration counts, by its names; negative ones are CPUs' debts, and shown as 0.

    Args:
        program: the kernel's typed data.
        enumeration: `zone_stat_item`, `node_stat_item`.
        address: of the array.
    """
    enumerators = getattr(program.type(f"enum {enumeration}"), "enumerators", ())
    count = min(max((value for name, value in enumerators if name.endswith("_ITEMS")), default=0), _MAX_ITEMS)
    data = program.memory.read(address, 8 * min(count, _MAX_ITEMS))
    found: dict[str, int] = {}
    for name, value in enumerators:
        if 0 <= value < count:
            found.setdefault(name, int.from_bytes(data[8 * value : 8 * value + 8], "little", signed=True))
    return found


def global_counters(program: Program) -> dict[str, int]:
    """vm_zone_stat and vm_node_stat by name, with what CPUs have not handed in yet: as exact as memory is."""
    linux = program.linux
    found = {
        **counters(program, "zone_stat_item", linux.address("vm_zone_stat")),
        **counters(program, "node_stat_item", linux.address("vm_node_stat")),
    }
    for name, difference in differences(program):
        found[name] += difference
    return {name: max(value, 0) for name, value in found.items()}


def differences(program: Program) -> Iterator[tuple[str, int]]:
    """What CPUs have counted and not handed in, by the counter's name (fold_diff() of mm/vmstat.c)."""
    linux = program.linux
    budget = Budget(MAX_ENTRIES)
    types = linux.types
    is_new = types.has("zone", "per_cpu_zonestats")
    of_zone = ("per_cpu_zonestats", "per_cpu_zonestat") if is_new else ("pageset", "per_cpu_pageset")
    zone_size = types.size("zone")
    zone_items = _item_names(program, "zone_stat_item")
    node_items = _item_names(program, "node_stat_item")
    for _, node in nodes_with_addresses(linux):
        first = node + types.offset("pglist_data", "node_zones")
        for index in range(min(types.array_length("pglist_data", "node_zones"), 16)):
            zone = first + index * zone_size
            if linux.member("zone", "managed_pages.counter", zone):
                pointer = linux.member("zone", of_zone[0], zone)
                yield from _of_cpus(linux, pointer, (of_zone[1], "vm_stat_diff"), zone_items, budget)
        pointer = linux.member("pglist_data", "per_cpu_nodestats", node)
        yield from _of_cpus(linux, pointer, ("per_cpu_nodestat", "vm_node_stat_diff"), node_items, budget)


def _of_cpus(
    linux: Linux, pointer: int, path: tuple[str, str], names: list[str], budget: Budget
) -> Iterator[tuple[str, int]]:
    """The differences in a per-CPU structure, by structure and member.

    Raises:
        BudgetSpent: nodes, zones and CPUs are more than any machine has.
    """
    offset = linux.types.offset(*path)
    length = min(linux.types.size_of_member(*path), _MAX_ITEMS)
    cpus = started_cpus(linux)
    budget.entries(len(cpus), pointer, "counters that CPUs keep")
    for cpu in cpus:
        try:
            data = linux.memory.read(pointer + linux.per_cpu_offset(cpu) + offset & U64, min(length, _MAX_ITEMS))
        except MemoryFault:
            continue
        for name, byte in zip(names, data, strict=False):
            yield name, signed(byte, 8)


def _item_names(program: Program, enumeration: str) -> list[str]:
    """One name for each number."""
    names: dict[int, str] = {}
    for name, value in getattr(program.type(f"enum {enumeration}"), "enumerators", ()):
        if not name.endswith("_ITEMS"):
            names.setdefault(value, name)
    return [names.get(value, str(value)) for value in range(min(max(names, default=-1) + 1, _MAX_ITEMS))]
