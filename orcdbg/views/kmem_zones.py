"""How do memory's totals, counters, nodes, zones, free blocks and cgroups look?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from orcdbg.commands.kmem_zones import Counters, FreeLists, MemoryGroups, MemoryNodes, MemoryUse
from orcdbg.subsystems.memory_groups import MemoryGroup
from orcdbg.subsystems.zones import MemoryNode, Zone
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view

_KIB = 4  # of a page


def _size(pages: int | None) -> str:
    """Pages as a size that people read."""
    if pages is None:
        return "-"
    kib = pages * _KIB
    for unit, scale in (("GB", 1 << 20), ("MB", 1 << 10)):
        if kib >= scale:
            return f"{kib / scale:.1f} {unit}"
    return f"{kib} KB"


_NAMES = {
    "total": "TOTAL MEM",
    "free": "FREE",
    "available": "AVAILABLE",
    "buffers": "BUFFERS",
    "cached": "CACHED",
    "swap_cached": "SWAP CACHED",
    "shared": "SHARED",
    "anonymous": "ANONYMOUS",
    "mapped": "MAPPED",
    "dirty": "DIRTY",
    "writeback": "WRITEBACK",
    "slab_reclaimable": "SLAB, RECLAIMABLE",
    "slab_unreclaimable": "SLAB, OTHER",
    "kernel_stacks": "KERNEL STACKS",
    "page_tables": "PAGE TABLES",
    "vmalloc": "VMALLOC",
    "swap_total": "TOTAL SWAP",
    "swap_free": "SWAP FREE",
    "committed": "COMMITTED",
    "commit_limit": "COMMIT LIMIT",
}


def _use_lines(result: MemoryUse, width: Width) -> Iterator[Line]:
    yield line(("                       PAGES        SIZE  PERCENT", "label"))
    totals = result.totals
    for name, title in _NAMES.items():
        pages = getattr(totals, name)
        whole = totals.swap_total if name.startswith("swap_") else totals.total
        percent = "" if pages is None or not whole or name.endswith("total") else f"{100 * pages / whole:>6.1f}%"
        shown = "-" if pages is None else pages
        yield line((f"{title:>18}", "label"), f"  {shown:>8}  {_size(pages):>10}  {percent}")
    yield from problem_lines(result.problems)


def _use_json(result: MemoryUse) -> Json:
    return {**{name: getattr(result.totals, name) for name in _NAMES}, "problems": list(result.problems)}


def _counter_lines(result: Counters, width: Width) -> Iterator[Line]:
    for name, value in result.counters.items():
        yield line(f"{name:>32}: {value}")


def _counter_json(result: Counters) -> Json:
    return {"counters": dict(result.counters)}


def _node_lines(result: MemoryNodes, width: Width) -> Iterator[Line]:
    for node in result.nodes:
        yield line(
            (f"NODE {node.number}", "header"),
            f"  pglist_data {node.address:016x}  frames {node.start_pfn:x} to {node.start_pfn + node.spanned:x},"
            f" {node.present} of them memory",
        )
        yield line(
            ("  ZONE      STRUCT            START PFN    SPANNED    PRESENT    MANAGED       FREE  ON CPUS", "label")
        )
        for zone in node.zones:
            yield line(
                (f"  {zone.name:<8}", "symbol"),
                f"  {zone.address:016x}  {zone.start_pfn:>9x} {zone.spanned:>10} {zone.present:>10} {zone.managed:>10}"
                f" {zone.counters.get('NR_FREE_PAGES', 0):>10}  {sum(zone.per_cpu.values()):>7}",
            )
            if result.in_full:
                yield from _zone_lines(zone)
    yield from problem_lines(result.problems)


def _zone_lines(zone: Zone) -> Iterator[Line]:
    marks = ", ".join(f"{name} {pages}" for name, pages in zip(("min", "low", "high"), zone.watermarks, strict=False))
    yield line(("    watermarks: ", "label"), marks)
    for name, value in zone.counters.items():
        yield line(f"    {name:>28}: {value}")


def zone_json(zone: Zone) -> Json:
    """ZONE of the contract."""
    return {
        "zone": hexadecimal(zone.address),
        "name": zone.name,
        "node": zone.node,
        "start_pfn": zone.start_pfn,
        "spanned": zone.spanned,
        "present": zone.present,
        "managed": zone.managed,
        "watermarks": list(zone.watermarks),
        "counters": dict(zone.counters),
        "per_cpu": {str(cpu): count for cpu, count in zone.per_cpu.items()},
        "free": [
            {
                "order": blocks.order,
                "count": blocks.counted,
                "lists": None
                if blocks.lists is None
                else {name: [hexadecimal(page) for page in pages] for name, pages in blocks.lists.items()},
            }
            for blocks in zone.free
        ],
    }


def node_json(node: MemoryNode) -> Json:
    """MEMORYNODE of the contract."""
    return {
        "node": node.number,
        "address": hexadecimal(node.address),
        "start_pfn": node.start_pfn,
        "spanned": node.spanned,
        "present": node.present,
        "zones": [zone_json(zone) for zone in node.zones],
    }


def _node_json(result: MemoryNodes | FreeLists) -> Json:
    return {"nodes": [node_json(node) for node in result.nodes], "problems": list(result.problems)}


def _free_lines(result: FreeLists, width: Width) -> Iterator[Line]:
    for node in result.nodes:
        for zone in node.zones:
            yield line((f"NODE {node.number}  ZONE {zone.name}", "header"), f"  {zone.free_pages} pages free in blocks")
            yield line(("  ORDER    SIZE     BLOCKS       PAGES", "label"))
            for blocks in zone.free:
                size = f"{_KIB << blocks.order}k"
                yield line(f"  {blocks.order:>5}  {size:>6}  {blocks.counted:>9}  {blocks.counted << blocks.order:>10}")
                for name, pages in (blocks.lists or {}).items():
                    for page in pages:
                        yield line(f"           {page:016x}  {name}")
    yield from problem_lines(result.problems)


def _group_lines(result: MemoryGroups, width: Width) -> Iterator[Line]:
    yield line(("MEM_CGROUP              USED       PEAK       HIGH      LIMIT       SWAP  OOM KILLS  PATH", "label"))
    for group in result.groups:
        state = "" if group.is_online else "  (removed)"
        yield line(
            f"{group.address:016x} {_size(group.used):>11} {_size(group.peak):>10} {_size(group.high):>10}"
            f" {_size(group.limit):>10} {_size(group.swap):>10}  {group.events.get('oom_kill', 0):>9}  ",
            (group.path or "?", "symbol"),
            (state, "note"),
        )
    yield from problem_lines(result.problems)


def group_json(group: MemoryGroup) -> Json:
    """MEMORYGROUP of the contract."""
    values = dataclasses.asdict(group)
    address, online = values.pop("address"), values.pop("is_online")
    return {"group": hexadecimal(address), **values, "online": online}


def _group_json(result: MemoryGroups) -> Json:
    return {"groups": [group_json(group) for group in result.groups], "problems": list(result.problems)}


view(MemoryUse, text=_use_lines, json=_use_json)
view(Counters, text=_counter_lines, json=_counter_json)
view(MemoryNodes, text=_node_lines, json=_node_json)
view(FreeLists, text=_free_lines, json=_node_json)
view(MemoryGroups, text=_group_lines, json=_group_json)
