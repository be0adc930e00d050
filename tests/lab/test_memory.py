"""A kernel's memory management on real kernels: what is said of it is what the guest's own /proc said, and what drgn finds.

The guest printed its accounts before its snapshot and after it: what they both say, the snapshot must say.
"""

from __future__ import annotations

import collections
import re
from random import Random
from typing import Any

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.standard import standard_commands
from orcdbg.subsystems.pages import PageFrame, PageUse
from orcdbg.subsystems.slab import ObjectState, Proof
from orcdbg.subsystems.slab_debug import slab_debug
from orcdbg.subsystems.user_memory import UserPageState
from orcdbg.subsystems.zones import differences
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from tests.lab import memory_accounts as accounts
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of
from tests.lab.scenes import Scene

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("memory"))]

OBJECTS = 4000
Json = dict[str, Any]


@pytest.fixture
def scene(kernel: str, open_scene: OpenScene) -> Scene:
    """The scene."""
    return open_scene(kernel, "memory")[0]


@pytest.fixture
def session(kernel: str, open_scene: OpenScene) -> Session:
    """The session over its snapshot."""
    return open_scene(kernel, "memory")[1]


@pytest.fixture
def drgn_program(scene: Scene) -> Any:
    """drgn over the same snapshot."""
    drgn = pytest.importorskip("drgn")
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    try:
        program.load_debug_info([str(scene.vmlinux)])
    except drgn.MissingDebugInfoError:
        pass  # of modules, which nothing here asks for
    return program


def ask(session: Session, line: str) -> Json:
    """A command's answer as JSON."""
    found: Json = encode(standard_commands().run(Debugger(session), line))
    return found


def both(scene: Scene, name: str) -> tuple[str, str]:
    """What the guest printed last before the snapshot, and after it."""
    *_, before, after = accounts.printed(scene)[name]
    return before, after


def agreed(scene: Scene, name: str) -> list[str]:
    """The lines that the guest printed both before and after the snapshot."""
    before, after = both(scene, name)
    later = set(after.splitlines())
    return [line for line in before.splitlines() if line in later]


def slab_pages(session: Session) -> list[PageFrame]:
    """All pages of slabs."""
    pages = session.kernel_memory.pages
    found = []
    for pfn in range(pages.places.memory_end // PAGE):
        try:
            page = pages.at(pfn)
        except OrcdbgError:
            continue  # no memory there
        if page.use is PageUse.SLAB:
            found.append(page)
    return found


# Slabs


def test_slab_states_are_drgns(session: Session, drgn_program: Any, seed: int) -> None:
    """Cache, slab, start and state of thousands of random addresses; drgn leaves out sheaves that wait for RCU."""
    from drgn.helpers.linux.slab import slab_object_info

    random = Random(f"slab {seed}")
    pages, slabs = slab_pages(session), session.kernel_memory.slabs
    compared: collections.Counter[Proof] = collections.Counter()
    states = {True: ObjectState.ALLOCATED, False: ObjectState.FREE, None: ObjectState.UNKNOWN}
    for _ in range(OBJECTS):
        page = random.choice(pages)
        address = slabs.pages.places.virtual_of(page.physical + random.randrange(PAGE))
        ours, theirs = slabs.object_at(address, page), slab_object_info(drgn_program, address)
        assert ours is not None
        assert theirs is not None
        assert (ours.cache.address, ours.slab.page) == (theirs.slab_cache.value_(), theirs.slab.value_())
        compared[ours.proof] += 1
        if ours.number is None or ours.proof is Proof.RCU_SHEAF:
            continue
        assert ours.state is states[theirs.allocated], hex(address)
        if ours.offset >= 0:
            assert ours.start == theirs.address
    assert compared[Proof.ON_NO_LIST] > OBJECTS // 2
    assert compared[Proof.SLAB_LIST] > 0
    assert compared[Proof.CPU_LIST] + compared[Proof.SHEAF] > 0


def test_caches_are_those_of_slabinfo(scene: Scene, session: Session) -> None:
    """Objects, sizes and slabs of each cache that did not change."""
    ours = {cache["name"]: cache for cache in ask(session, "kmem -s")["caches"]}
    compared = 0
    for line in agreed(scene, "slabinfo")[2:]:
        name, _, objects, size, per_slab, per = line.split()[:6]
        slabs = line.split("slabdata")[1].split()[1]
        cache = ours[name]
        assert cache["problems"] == []
        found = [cache["objects"], cache["size"], cache["objects_per_slab"], 1 << cache["order"], cache["slabs"]]
        assert found == [int(word) for word in (objects, size, per_slab, per, slabs)], name
        compared += 1
    assert compared > 80


def test_names_of_merged_caches_are_drgns(session: Session, drgn_program: Any) -> None:
    """Each alias that sysfs keeps, and what it was merged into."""
    from drgn.helpers.linux.slab import get_slab_cache_aliases

    theirs = get_slab_cache_aliases(drgn_program)
    ours = {name: cache["name"] for cache in ask(session, "kmem -s")["caches"] for name in cache["merged"]}
    # A cache that is no longer merged with a living one keeps its alias.
    shared = {name: theirs[name] for name in ours}
    assert ours == shared
    assert len(ours) > 5


def test_tracks_are_those_that_the_guest_printed(scene: Scene, session: Session) -> None:
    """Of a cache with slub_debug: who allocated how many of its objects, with red zones and poison whole."""
    slabs = session.kernel_memory.slabs
    cache = slabs.find_cache(accounts.TRACKED)
    assert cache.debug >= {"STORE_USER", "RED_ZONE", "POISON"}
    ours: collections.Counter[str] = collections.Counter()
    stacks = 0
    for slab in slabs.slabs_of(cache, Budget(1 << 16)):
        page = slabs.pages.read(slab.page)
        for start, state, _, _ in slabs.objects_of(slab):
            found = slabs.object_at(start, page)
            assert found is not None
            debug = slab_debug(session.linux, found)
            assert debug is not None
            assert debug.damage == ()
            if state is ObjectState.ALLOCATED:
                assert debug.allocation is not None
                assert debug.allocation.problem is None
                ours[str(session.names.describe(debug.allocation.caller)).split("/")[0]] += 1
                stacks += len(debug.allocation.stack) > 3
    theirs: collections.Counter[str] = collections.Counter()
    for count, place in re.findall(r"(?m)^\S+?: *(\d+) ([\w.]+\+0x[0-9a-f]+)", "\n".join(both(scene, "tracks")[:1])):
        theirs[place] += int(count)
    assert sum(theirs.values()) > 1000
    assert ours == theirs
    assert stacks == sum(ours.values())


# Vmalloc


_AREA = re.compile(r"^0x([0-9a-f]+)-0x([0-9a-f]+) +\d+ (\S+)(.*)$")


def test_vmalloc_areas_are_those_of_vmallocinfo(scene: Scene, session: Session) -> None:
    """Bounds, caller, pages and kinds of each area that stayed."""
    ours = {area["start"]: area for area in ask(session, "kmem -v")["areas"]}
    compared = 0
    for line in agreed(scene, "vmallocinfo"):
        match = _AREA.match(line)
        assert match is not None
        start, end, caller, rest = match.groups()
        if caller in ("unpurged", "vm_map_ram"):
            continue
        area = ours[f"0x{start}"]
        assert area["end"] == f"0x{end}"
        assert area["caller"].split(" ")[0] == caller
        pages = re.search(r"pages=(\d+)", rest)
        assert area["pages"] == (int(pages.group(1)) if pages else 0)
        assert set(area["kinds"]) <= set(rest.split())
        physical = re.search(r"phys=0x0*([0-9a-f]+)", rest)
        assert area["physical"] == (f"0x{physical.group(1)}" if physical else None)
        compared += 1
    assert compared > 60


# Totals

_FIELDS = {
    "MemTotal": "total",
    "MemFree": "free",
    "Buffers": "buffers",
    "Cached": "cached",
    "SwapCached": "swap_cached",
    "SwapTotal": "swap_total",
    "SwapFree": "swap_free",
    "Dirty": "dirty",
    "Writeback": "writeback",
    "AnonPages": "anonymous",
    "Mapped": "mapped",
    "Shmem": "shared",
    "SReclaimable": "slab_reclaimable",
    "SUnreclaim": "slab_unreclaimable",
    "KernelStack": "kernel_stacks",
    "PageTables": "page_tables",
    "VmallocUsed": "vmalloc",
    "CommitLimit": "commit_limit",
    "Committed_AS": "committed",
}


def _kib(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(?m)^(\S+): +(\d+) kB$", text)}


# What the one process that printed, and the one that slept when the snapshot was taken, do not change.
_STILL = {
    "MemTotal",
    "Buffers",
    "Cached",
    "SwapCached",
    "SwapTotal",
    "SwapFree",
    "Dirty",
    "Writeback",
    "Shmem",
    "CommitLimit",
}


def test_totals_are_those_of_meminfo(scene: Scene, session: Session) -> None:
    """Each value that is no process's and did not change; free memory is as much, but for some processes'."""
    ours = ask(session, "kmem -i")
    assert ours["problems"] == []
    before, after = (_kib(text) for text in both(scene, "meminfo"))
    still = {name for name in _STILL if before[name] == after[name]}
    assert len(still) >= 8
    assert {name: 4 * ours[_FIELDS[name]] for name in still} == {name: before[name] for name in still}
    for name, field in _FIELDS.items():
        # Two processes of busybox have less than 2 MiB together.
        assert abs(4 * ours[field] - before[name]) <= abs(after[name] - before[name]) + 2048, name


def test_counters_are_drgns(session: Session, drgn_program: Any) -> None:
    """All of zones and nodes; ours have what CPUs had not handed in besides, which this guest had done."""
    from drgn.helpers.linux.vmstat import global_node_page_state, global_zone_page_state

    ours = ask(session, "kmem -V")["counters"]
    compared = 0
    for enumeration, read in (("node_stat_item", global_node_page_state), ("zone_stat_item", global_zone_page_state)):
        kept = collections.Counter[str]()
        for name, difference in differences(session.program):
            kept[name] += difference
        for name, value in drgn_program.type(f"enum {enumeration}").enumerators:
            if name.endswith("_ITEMS") or name not in ours:
                continue
            assert ours[name] == max(read(drgn_program, value) + kept[name], 0), name
            compared += 1
    assert compared > 40


def test_free_blocks_are_those_of_the_lists(session: Session, drgn_program: Any) -> None:
    """Counters of blocks are the lengths of the lists, and their sum is what the zone says is free."""
    for node in ask(session, "kmem -F --limit 1000000")["nodes"]:
        for zone in node["zones"]:
            listed = 0
            for blocks in zone["free"]:
                count = sum(len(pages) for pages in blocks["lists"].values())
                assert count == blocks["count"]
                listed += count << blocks["order"]
            assert listed == zone["counters"]["NR_FREE_PAGES"]
            assert zone["managed"] > listed > 0


def test_a_cgroups_limits_are_its_own(scene: Scene, session: Session) -> None:
    """And what it uses."""
    text = both(scene, "group")[1]
    used = int(re.findall(r"memory.current:(\d+)", text)[0])
    group = next(group for group in ask(session, "kmem -c")["groups"] if group["path"] == f"/{accounts.GROUP}")
    assert (group["used"] * PAGE, group["high"] * PAGE, group["limit"] * PAGE) == (
        used,
        accounts.GROUP_HIGH,
        accounts.GROUP_MAX,
    )


# User memory

_PRESENT, _SWAPPED = 1 << 63, 1 << 62
_FRAME = (1 << 55) - 1


def _pagemap(text: str) -> dict[int, int]:
    """By address, the words of /proc/PID/pagemap."""
    found = {}
    address = 0
    for line in text.splitlines():
        if line.startswith("AREA "):
            address = int(line.split()[1], 16)
            continue
        low, high = line.split()
        found[address] = int(high, 16) << 32 | int(low, 16)
        address += PAGE
    return found


def test_pages_of_a_process_are_in_the_states_of_pagemap(scene: Scene, session: Session) -> None:
    """Present in the same frames, swapped to the same places, or absent; each state that the program made is there."""
    memory = session.kernel_memory.user_memory(session.task(accounts.pid_with_pages(scene)))
    states: dict[int, collections.Counter[UserPageState]] = {}
    pages = _pagemap(both(scene, "pages")[0])
    assert pages == _pagemap(both(scene, "pages")[1])
    for address, word in pages.items():
        page = memory.page(address)
        states.setdefault(address >> 28, collections.Counter())[page.state] += 1
        if word & _PRESENT:
            assert page.state in (UserPageState.PRESENT, UserPageState.ZERO, UserPageState.NO_ACCESS), hex(address)
            assert page.physical is not None
            assert page.physical // PAGE == word & _FRAME, hex(address)
        elif page.state in (UserPageState.GUARD, UserPageState.MARKED):
            assert page.physical is None
        elif word & _SWAPPED:
            assert page.swap is not None, hex(address)
            assert (page.swap.type, page.swap.offset) == (word & 31, (word & _FRAME) >> 5)
        else:
            assert page.swap is None
            assert page.state in _ABSENT, hex(address)
    assert len(pages) > 1100
    assert states[accounts.SWAPPED >> 28][UserPageState.SWAPPED] == 32
    assert states[accounts.ZEROS >> 28] == {UserPageState.ZERO: 16}
    assert states[accounts.NO_ACCESS >> 28] == {UserPageState.NO_ACCESS: 16}
    assert states[accounts.UNTOUCHED >> 28] == {UserPageState.NEVER_TOUCHED: 16}
    assert states[accounts.LARGE >> 28] == {UserPageState.PRESENT: 1024}
    # Since 6.13 (662df3e5c376); earlier kernels refuse, and the pages stay.
    has_guards = session.symbols.find("madvise_guard_install") is not None
    assert states[accounts.GUARDED >> 28] == {UserPageState.GUARD if has_guards else UserPageState.PRESENT: 16}


_ABSENT = frozenset(
    {
        UserPageState.IN_PAGE_CACHE,
        UserPageState.IN_FILE,
        UserPageState.NEVER_TOUCHED,
        UserPageState.MADE_ON_ACCESS,
    }
)


def test_an_area_lists_its_pages(scene: Scene, session: Session) -> None:
    """`vm -p`: as many pages as the area has, those on swap in one stretch."""
    task = ask(session, f"vm -p {accounts.pid_with_pages(scene)}")["tasks"][0]
    for area in task["areas"]:
        size = int(area["end"], 16) - int(area["start"], 16)
        assert sum(stretch["count"] for stretch in area["pages"]) * PAGE == size
    swapped = next(area for area in task["areas"] if int(area["start"], 16) == accounts.SWAPPED)["pages"]
    assert sum(stretch["count"] for stretch in swapped if stretch["page"]["state"] == "swapped") == 32


def test_user_memory_is_read_as_drgn_reads_it(scene: Scene, session: Session, drgn_program: Any) -> None:
    """Arguments, environment and present pages of every process."""
    from drgn.helpers.linux.mm import access_remote_vm, cmdline, environ
    from drgn.helpers.linux.pid import find_task

    compared = 0
    for task in session.tasks:
        if task.is_kernel_thread or task.state in ("ZO", "DE"):
            continue
        memory, theirs = session.kernel_memory.user_memory(task), find_task(drgn_program, task.pid)
        assert [word.encode() for word in memory.arguments()] == (cmdline(theirs) or []), task.pid
        assert [word.encode() for word in memory.environment()] == (environ(theirs) or []), task.pid
        for start, _ in memory.ranges[:8]:
            if memory.page(start).state is UserPageState.PRESENT:
                assert memory.read(start, PAGE) == access_remote_vm(theirs.mm, start, PAGE)
                compared += 1
    assert compared > 40


# Addresses


def test_findings_name_what_drgn_names(session: Session, drgn_program: Any, seed: int) -> None:
    """Per-CPU variables, stacks, page flags: of random places."""
    from drgn.helpers.linux.mm import decode_page_flags, pfn_to_page

    random = Random(f"addresses {seed}")
    for _ in range(500):
        pfn = random.randrange(16, session.kernel_memory.places.memory_end // PAGE)
        try:
            page = session.kernel_memory.pages.at(pfn)
        except OrcdbgError:
            continue
        theirs = decode_page_flags(pfn_to_page(drgn_program, pfn))
        assert page.address == pfn_to_page(drgn_program, pfn).value_()
        ours = {f"PG_{name}" for name in page.flag_names if name != "swapcache"}
        assert ours <= set(theirs.split("|")), (pfn, theirs)
    for task in random.sample(session.tasks, 20):
        if not task.stack:
            continue
        answer = ask(session, f"kmem {task.stack + random.randrange(16384):x}")["addresses"][0]["findings"]
        stack = next(finding for finding in answer if finding["kind"] == "stack")
        assert stack["pid"] == task.pid
