"""kmem -i, -V, -n, -z, -f, -F, -c: memory in total, counters, nodes, zones, free blocks, memory cgroups."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.subsystems import memory_groups as groups
from orcdbg.subsystems import zones
from orcdbg.subsystems.memory_totals import MemoryTotals, memory_totals


@dataclass(frozen=True, slots=True)
class MemoryUse(Result):
    """Memory in total."""

    totals: MemoryTotals
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Counters(Result):
    """Counters of zones and nodes by the kernel's names, all of the machine together."""

    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemoryNodes(Result):
    """Memory nodes and their zones; `in_full` with watermarks and counters."""

    nodes: Sequence[zones.MemoryNode]
    in_full: bool
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class FreeLists(Result):
    """Free blocks of each zone."""

    nodes: Sequence[zones.MemoryNode]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class MemoryGroups(Result):
    """Memory cgroups."""

    groups: Sequence[groups.MemoryGroup]
    problems: Sequence[str]


def memory_use(debugger: Debugger, arguments: argparse.Namespace) -> MemoryUse:
    """`kmem -i`."""
    problems: list[str] = []
    return MemoryUse(memory_totals(debugger.session.program, problems), problems)


def statistics(debugger: Debugger, arguments: argparse.Namespace) -> Counters:
    """`kmem -V`."""
    return Counters(zones.global_counters(debugger.session.program))


def memory_nodes(debugger: Debugger, arguments: argparse.Namespace) -> MemoryNodes:
    """`kmem -n`."""
    budget = Budget(zones.MAX_ENTRIES)
    return MemoryNodes(zones.nodes(debugger.session.program, budget), False, budget.lines())


def zone_list(debugger: Debugger, arguments: argparse.Namespace) -> MemoryNodes:
    """`kmem -z`."""
    budget = Budget(zones.MAX_ENTRIES)
    return MemoryNodes(zones.nodes(debugger.session.program, budget), True, budget.lines())


def free_lists(debugger: Debugger, arguments: argparse.Namespace) -> FreeLists:
    """`kmem -f`."""
    budget = Budget(zones.MAX_ENTRIES)
    return FreeLists(zones.nodes(debugger.session.program, budget), budget.lines())


def free_blocks(debugger: Debugger, arguments: argparse.Namespace) -> FreeLists:
    """`kmem -F`."""
    budget, blocks = Budget(zones.MAX_ENTRIES), Budget(arguments.limit)
    found = zones.nodes(debugger.session.program, budget, blocks)
    return FreeLists(found, [*budget.lines(), *blocks.lines()])


def memory_groups(debugger: Debugger, arguments: argparse.Namespace) -> MemoryGroups:
    """`kmem -c`."""
    budget = Budget(4 * groups.MAX_GROUPS)
    return MemoryGroups(groups.memory_groups(debugger.session.program, budget), budget.lines())
