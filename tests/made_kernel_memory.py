"""Answers about a kernel's memory management that the bundled sample has no memory for: made by hand, one of each shape."""

from __future__ import annotations

from typing import Any

from orcdbg.commands.kmem import AddressFindings
from orcdbg.commands.kmem_lists import FlagNames, HugePagePool, HugePages, PageList, PerCpuOffsets, VmallocList
from orcdbg.commands.kmem_slabs import CacheContents, ListedObject, ListedSlab, SlabCaches, SlabContents
from orcdbg.commands.kmem_zones import Counters, MemoryGroups, MemoryNodes, MemoryUse
from orcdbg.commands.search import SearchHit, SearchHits
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.kernel.tasks import Task
from orcdbg.patches.site import PatchSite
from orcdbg.snapshot.pagetables import Translation
from orcdbg.subsystems.address_map import Region
from orcdbg.subsystems.memory_groups import MemoryGroup
from orcdbg.subsystems.memory_totals import MemoryTotals
from orcdbg.subsystems.page_owner import PageOwner
from orcdbg.subsystems.pages import PageFrame, PageUse
from orcdbg.subsystems.per_cpu_areas import PerCpuPlace
from orcdbg.subsystems.slab import (
    CacheUsage,
    ObjectPart,
    ObjectState,
    Proof,
    Slab,
    SlabCache,
    SlabObject,
    SlabPlace,
)
from orcdbg.subsystems.slab_debug import Damage, SlabDebug, Track
from orcdbg.subsystems.user_memory import SwapPlace, UserPage, UserPageState, UserStretch
from orcdbg.subsystems.vmalloc import VmallocArea
from orcdbg.subsystems.zones import FreeBlocks, MemoryNode, Zone
from orcdbg.target import address_findings as findings
from orcdbg.views.as_json import encode
from orcdbg.views.vm import stretch_json

Json = dict[str, Any]

DIRECT_MAP = 0xFFFF_8880_0000_0000
PAGES = 0xFFFF_EA00_0000_0000
TEXT = 0xFFFF_FFFF_8100_0000

CACHE = SlabCache(
    DIRECT_MAP + 0x1000, "filp", 256, 232, 128, 0x1234, 0, 232, 0x2000, 2, 16, 0, 0, frozenset({"STORE_USER"})
)
SLAB = Slab(PAGES + 0x40 * 5, DIRECT_MAP + 0x5000, 4096, CACHE.address, 16, 15, False, DIRECT_MAP + 0x5F00)
TASK = Task(DIRECT_MAP + 0x9000, 7, 7, "sh", 0, "IN", 0, 0xFFFF_C900_0000_0000, None)
OBJECT = SlabObject(
    CACHE,
    SLAB,
    SlabPlace.CPU_PARTIAL,
    1,
    3,
    SLAB.start + 0x300,
    8,
    ObjectPart.OBJECT,
    ObjectState.FREE,
    Proof.CPU_LIST,
    1,
    ("a problem",),
)
TRACK = Track(TEXT + 0x20, (TEXT + 0x20, TEXT + 0x40), 0, 7, 4294900000)
DEBUG = SlabDebug(TRACK, TRACK, (Damage("poison", SLAB.start + 0x310, 0x6B, b"\x41\x42"),))
OWNER = PageOwner(DIRECT_MAP + 0x7000, False, DIRECT_MAP + 0x6F00, 12, "sda1", "ext4", "/bin/sh", 0x2000)
PAGE = PageFrame(PAGES + 0x40 * 5, 5, 0x28, ("uptodate", "lru"), None, PageUse.FILE, PAGES + 0x140, None, 3, 0, 2, 0, 2)
AREA = VmallocArea(
    DIRECT_MAP + 0x8000,
    0xFFFF_C900_0000_0000,
    0xFFFF_C900_0000_5000,
    DIRECT_MAP + 0x8100,
    0x22,
    ("vmalloc",),
    4,
    0,
    TEXT,
)
TRANSLATION = Translation((), 0x5308, 0x200000, None)
USER_PAGE = UserPage(
    0x7FFE_0000_0000,
    UserPageState.SWAPPED,
    None,
    0,
    Translation((), None, 0, "the PTE entry is not present"),
    DIRECT_MAP + 0xA000,
    None,
    None,
    SwapPlace(0, 0x1234, "/swap"),
)
ZONE = Zone(
    DIRECT_MAP + 0xB000,
    0,
    "Normal",
    0x100000,
    1000,
    1000,
    990,
    {"NR_FREE_PAGES": 100},
    {0: 5},
    (10, 20, 30),
    (FreeBlocks(0, 1, {"movable": (PAGES + 0x40,)}),),
)
NODE = MemoryNode(0, DIRECT_MAP + 0xC000, 1, 2000, 1990, (ZONE,))
GROUP = MemoryGroup(DIRECT_MAP + 0xD000, "/system.slice", 100, 200, 0, 300, 400, 0, None, True, {"oom_kill": 1})
POOL = HugePagePool(TEXT, "hugepages-2048kB", 2 << 20, 8, 6, 1, 0)
TOTALS = MemoryTotals(*range(1, 21))

FINDINGS: tuple[findings.Finding, ...] = (
    findings.RegionFinding(Region.DIRECT_MAP, TRANSLATION),
    findings.SymbolFinding(Location("schedule", TEXT, 64, None, True), ".text", None, 8),
    findings.PatchFinding(PatchSite("ftrace", TEXT, 5, "off", bytes(5), bytes(5), "a record", 0)),
    findings.SlabFinding(OBJECT, DEBUG, "file", "f_mode", ("other",), {TEXT + 0x20: "kmalloc+0x20/0x40"}),
    findings.PageFinding(PAGE, OWNER),
    findings.PageStructFinding(PAGE, OWNER, 8),
    findings.VmallocFinding(AREA, "kernel_clone+0x1/0x2"),
    findings.PerCpuFinding(PerCpuPlace(1, 0x1F000, "runqueues", 8, True)),
    findings.StackFinding(Stack(StackKind.TASK, AREA.start, AREA.start + 0x4000, task=TASK.address), TASK),
    findings.UserFinding(TASK, USER_PAGE),
    findings.PhysicalFinding(DIRECT_MAP + 0x5308),
    findings.ProblemFinding("something could not be read"),
)
USAGE = CacheUsage(CACHE, 4, 64, 10, 1, ("a problem",))
LISTED = ListedSlab(SLAB, SlabPlace.FULL, None, [ListedObject(SLAB.start, ObjectState.FREE, Proof.SLAB_LIST, None)])
CONTENTS = CacheContents(USAGE, ("other",), (LISTED,), 1, ())

ADDRESSES = AddressFindings([(DIRECT_MAP + 0x5308, FINDINGS)])
RESULTS = {
    "ADDRESSES": ADDRESSES,
    "SLABCACHES": SlabCaches([(USAGE, ("other",))], ()),
    "SLABCONTENTSLIST": SlabContents([CONTENTS]),
    "VMALLOCLIST": VmallocList([(AREA, "kernel_clone+0x1/0x2")], ()),
    "PAGES": PageList([(PAGE, OWNER)], False, ()),
    "PERCPUOFFSETS": PerCpuOffsets([DIRECT_MAP]),
    "PAGEFLAGS": FlagNames({0: ("locked",)}, [(1, ("locked",))]),
    "HUGEPAGES": HugePages([POOL], ()),
    "MEMORYUSE": MemoryUse(TOTALS, ()),
    "COUNTERS": Counters({"NR_FREE_PAGES": 1}),
    "MEMORYNODES": MemoryNodes([NODE], True, ()),
    "MEMORYGROUPS": MemoryGroups([GROUP], ()),
    "SEARCHHITS": SearchHits([SearchHit(TEXT, 7, "schedule+0x0/0x40", TASK)], 8, True, None, ()),
}


def described_objects() -> dict[str, Json]:
    """An object of each shape that docs/contract.md describes, by its name there."""
    made: dict[str, Any] = {name: encode(result) for name, result in RESULTS.items()}
    described = made["ADDRESSES"]["addresses"][0]
    by_kind = {finding["kind"]: finding for finding in described["findings"]}
    slab = by_kind["slab"]
    cache = made["SLABCONTENTSLIST"]["contents"][0]
    zone = made["MEMORYNODES"]["nodes"][0]["zones"][0]
    page = by_kind["page"]["page"]
    return {
        **made,
        "DESCRIBED": described,
        "INREGION": by_kind["region"],
        "ATSYMBOL": by_kind["symbol"],
        "ATPATCH": by_kind["patch"],
        "INSLAB": slab,
        "SLABDEBUG": slab["debug"],
        "TRACK": slab["debug"]["allocated"],
        "TRACKENTRY": slab["debug"]["allocated"]["stack"][0],
        "DAMAGE": slab["debug"]["damage"][0],
        "INPAGE": by_kind["page"],
        "PAGE": page,
        "PAGEOWNER": page["owner"],
        "INPAGESTRUCT": by_kind["page-struct"],
        "INVMALLOC": by_kind["vmalloc"],
        "INPERCPU": by_kind["per-cpu"],
        "ONSTACK": by_kind["stack"],
        "INUSERMEMORY": by_kind["user"],
        "AREAPAGES": stretch_json(UserStretch(USER_PAGE, 3)),
        "USERPAGE": by_kind["user"]["page"],
        "ASPHYSICAL": by_kind["physical"],
        "UNREAD": by_kind["problem"],
        "SLABCACHE": made["SLABCACHES"]["caches"][0],
        "SLABCONTENTS": cache,
        "SLAB": cache["slabs"][0],
        "SLABOBJECT": cache["slabs"][0]["objects"][0],
        "VMALLOCAREA": made["VMALLOCLIST"]["areas"][0],
        "FLAGVALUE": made["PAGEFLAGS"]["values"][0],
        "HUGEPOOL": made["HUGEPAGES"]["pools"][0],
        "MEMORYNODE": made["MEMORYNODES"]["nodes"][0],
        "ZONE": zone,
        "FREEBLOCKS": zone["free"][0],
        "MEMORYGROUP": made["MEMORYGROUPS"]["groups"][0],
        "SEARCHHIT": made["SEARCHHITS"]["hits"][0],
    }
