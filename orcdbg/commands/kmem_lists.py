"""kmem -v, -p, -o, -H, -g: vmalloc areas, page frames, per-CPU offsets, huge pages, page flags."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import parse_number
from orcdbg.subsystems.address_map import Region
from orcdbg.subsystems.page_owner import PageOwner, owner_of
from orcdbg.subsystems.page_scan import frame_ranges
from orcdbg.subsystems.pages import PageFrame, Pages
from orcdbg.subsystems.vmalloc import VmallocArea

_MAX_POOLS = 8


@dataclass(frozen=True, slots=True)
class VmallocList(Result):
    """The areas of the vmalloc space, each with the symbol of the code that asked for it."""

    areas: Sequence[tuple[VmallocArea, str | None]]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class PageList(Result):
    """Page frames, each with its owner; `more` says whether the limit left some out."""

    pages: Sequence[tuple[PageFrame, PageOwner | None]]
    more: bool
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class PerCpuOffsets(Result):
    """By CPU, what is added to a per-CPU pointer."""

    offsets: Sequence[int]


@dataclass(frozen=True, slots=True)
class FlagNames(Result):
    """Page flags: the names of each bit, and for some values which are set."""

    bits: Mapping[int, Sequence[str]]
    values: Sequence[tuple[int, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class HugePagePool:
    """A pool of huge pages: `size` in bytes, the others are numbers of pages."""

    address: int
    name: str
    size: int
    total: int
    free: int
    reserved: int
    surplus: int


@dataclass(frozen=True, slots=True)
class HugePages(Result):
    """The pools of huge pages."""

    pools: Sequence[HugePagePool]
    problems: Sequence[str]


def vmalloc_list(debugger: Debugger, arguments: argparse.Namespace) -> VmallocList:
    """`kmem -v`: all areas, or those that hold the addresses given."""
    session = debugger.session
    areas = session.kernel_memory.vmalloc
    chosen: Sequence[VmallocArea] = areas.areas
    if arguments.words:
        found = [(word, areas.at(debugger.address(word))) for word in arguments.words]
        missing = [word for word, area in found if area is None]
        if missing:
            raise NotFound("vmalloc area", missing[0])
        chosen = [area for _, area in found if area is not None]
    named = [(area, session.names.describe(area.caller) if area.caller else None) for area in chosen]
    return VmallocList(named, areas.problems)


def page_list(debugger: Debugger, arguments: argparse.Namespace) -> PageList:
    """`kmem -p`: the pages of addresses, or all."""
    pages = debugger.session.kernel_memory.pages
    budget = Budget(1 << 20)
    if arguments.words:
        chosen = [_page_of(debugger, pages, word) for word in arguments.words]
        return PageList([(page, owner_of(pages.program, page, budget)) for page in chosen], False, budget.lines())
    found: list[tuple[PageFrame, PageOwner | None]] = []
    for page in itertools.islice(_all_pages(pages, budget), arguments.limit + 1):
        found.append((page, owner_of(pages.program, page, budget)))
    return PageList(found[: arguments.limit], len(found) > arguments.limit, budget.lines())


def _all_pages(pages: Pages, budget: Budget) -> Iterator[PageFrame]:
    for start, end in frame_ranges(pages, budget):
        for pfn in range(start, end):
            try:
                yield pages.at(pfn)
            except OrcdbgError:
                continue  # frames without memory have no struct page


def _page_of(debugger: Debugger, pages: Pages, word: str) -> PageFrame:
    """The page of a word: the address of a `struct page`, a virtual or a physical address."""
    address = debugger.address(word)
    places = pages.places
    region = places.region(address)
    if region is Region.VMEMMAP:
        pfn = places.pfn_of(address)
        if pfn is None:
            raise NotFound("page", f"{address:#x}")
        return pages.at(pfn)
    if region is Region.USER:
        return pages.of_physical(address)
    if places.in_direct_map(address):
        return pages.of_physical(places.physical_of(address))
    return pages.of_physical(debugger.session.memory.translate(address))


def per_cpu_offsets(debugger: Debugger, arguments: argparse.Namespace) -> PerCpuOffsets:
    """`kmem -o`."""
    return PerCpuOffsets(debugger.session.kernel_memory.per_cpu.offsets)


def flag_names(debugger: Debugger, arguments: argparse.Namespace) -> FlagNames:
    """`kmem -g`."""
    pages = debugger.session.kernel_memory.pages
    values = [_value(word) for word in arguments.words]
    return FlagNames(pages.flag_bits, [(value, pages.flag_names(value)) for value in values])


def _value(word: str) -> int:
    try:
        return int(word, 16)
    except ValueError:
        return parse_number(word)


def huge_pages(debugger: Debugger, arguments: argparse.Namespace) -> HugePages:
    """`kmem -H`: mirrors hugetlb_report_meminfo() of mm/hugetlb.c."""
    linux = debugger.session.linux
    if arguments.words:
        raise UsageError("kmem -H takes no address")
    start, count_at = linux.find_address("hstates"), linux.find_address("hugetlb_max_hstate")
    if start is None or count_at is None:
        return HugePages((), ("this kernel has no huge pages in pools",))
    count = int.from_bytes(linux.memory.read(count_at, 4), "little")
    size = linux.types.size("hstate")
    budget = Budget(_MAX_POOLS)
    pools = []
    for number in range(min(count, _MAX_POOLS)):
        address = start + number * size
        try:
            order = linux.member("hstate", "order", address)
            counts = [
                linux.member("hstate", path, address)
                for path in ("nr_huge_pages", "free_huge_pages", "resv_huge_pages", "surplus_huge_pages")
            ]
            name = linux.text_member("hstate", "name", address)
            pools.append(HugePagePool(address, name, 4096 << min(order, 30), *counts))
        except OrcdbgError as error:
            budget.note_error("a pool of huge pages", address, error)
    return HugePages(pools, budget.lines())
