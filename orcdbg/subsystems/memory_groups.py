"""Which memory cgroups are there, how much do they use, and what are they allowed?

Mirrors mm/memcontrol.c, include/linux/page_counter.h, and kernel/cgroup/cgroup.c for the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.walks import Budget
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# Large machines have some 10^4; dying ones stay until their pages are gone.
MAX_GROUPS = 1 << 17
_MAX_DEPTH = 256
# PAGE_COUNTER_MAX: no limit.
NO_LIMIT = (1 << 63) // 4096 - 1


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A memory cgroup.

    Attributes:
        address: of the `mem_cgroup`.
        path: its place in the cgroup tree; None where it cannot be read.
        used: pages that it uses, with those of the groups below it.
        peak: the most that it used.
        low: memory.low in pages.
        high: memory.high in pages; None for no limit.
        limit: memory.max in pages; None for no limit.
        swap: pages of it on swap; of cgroup v1 memory and swap together.
        swap_limit: None for no limit.
        is_online: False of a group that was removed, and still has pages.
        events: how often memory.events counted, by name: `low`, `high`, `max`, `oom`, `oom_kill`.
    """

    address: int
    path: str | None
    used: int
    peak: int
    low: int
    high: int | None
    limit: int | None
    swap: int
    swap_limit: int | None
    is_online: bool
    events: dict[str, int]


def memory_groups(program: Program, budget: Budget) -> list[MemoryGroup]:
    """All memory cgroups, the root first, a group before those below it; what cannot be read is the budget's.

    Raises:
        NotFound: the kernel has none (CONFIG_MEMCG).
    """
    linux = program.linux
    root = read_u64(linux.memory, linux.address("root_mem_cgroup"))
    found = []
    for address in _below(program, root, budget):
        try:
            found.append(_group(program, address, budget))
        except OrcdbgError as error:
            budget.note_error("a memory cgroup", address, error)
    return found


def _below(program: Program, root: int, budget: Budget) -> Iterator[int]:
    """A group and all below it, by the lists of their children."""
    linux = program.linux
    children = linux.types.offset("cgroup_subsys_state", "children")
    state = linux.types.offset("mem_cgroup", "css")
    pending = [root]
    seen = {root}
    for _ in range(MAX_GROUPS):
        if not pending:
            return
        address = pending.pop()
        yield address
        # A node's own list gives it its children once, and the set each group once.
        listed = list(linux.walk_list(address + state + children, "cgroup_subsys_state", "sibling", budget))
        new = [child - state for child in listed if child - state not in seen]
        seen.update(new)
        pending += reversed(new)


def _limit(pages: int) -> int | None:
    return None if pages >= NO_LIMIT else pages


def _group(program: Program, address: int, budget: Budget) -> MemoryGroup:
    group = program.object("mem_cgroup", address)
    memory = group.member_("memory")
    swap = group.first_of_("swap", "memsw")
    flags = int(group.member_("css.flags"))
    return MemoryGroup(
        address,
        _path(group, budget),
        _count(memory),
        int(memory.member_("watermark")),
        int(memory.member_("low")),
        _limit(int(memory.first_of_("high") or NO_LIMIT)),
        _limit(int(memory.member_("max"))),
        0 if swap is None else _count(swap),
        None if swap is None else _limit(int(swap.member_("max"))),
        bool(flags & 2),  # CSS_ONLINE
        _events(group),
    )


def _count(counter: Object) -> int:
    return max(int(counter.member_("usage.counter")), 0)


def _events(group: Object) -> dict[str, int]:
    """memory_events by `enum memcg_memory_event`."""
    if not group.has_member_("memory_events"):
        return {}
    names: dict[int, str] = {}
    for name, number in getattr(group.program_.type("enum memcg_memory_event"), "enumerators", ()):
        if name.startswith("MEMCG_") and not name.startswith("MEMCG_NR_"):
            names.setdefault(number, name.removeprefix("MEMCG_").lower())
    events = group.member_("memory_events")
    return {names.get(number, str(number)): int(event.member_("counter")) for number, event in enumerate(events)}


def _path(group: Object, budget: Budget) -> str | None:
    """The path of the group's directory: kernfs_path()."""
    node = group.member_("css.cgroup").member_("kn")
    parts: list[str] = []
    try:
        for _ in range(_MAX_DEPTH):
            if not budget.take("the cgroups above memory cgroups", group.address_ or 0):
                return None
            # Since 6.15 (741c10b096bc) the parent is named otherwise.
            parent = node.first_of_("__parent", "parent")
            if parent is None or not int(parent):
                return "/" + "/".join(reversed(parts))
            parts.append(node.member_("name").string_(256))
            node = node.program_.value("struct kernfs_node *", int(parent))
    except OrcdbgError as error:
        budget.note_error("the path of a memory cgroup", group.address_ or 0, error)
    return None
