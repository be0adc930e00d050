"""How do vmalloc areas, page frames, per-CPU offsets, huge pages and page flags look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.kmem_lists import FlagNames, HugePagePool, HugePages, PageList, PerCpuOffsets, VmallocList
from orcdbg.views.kmem import owner_lines, page_json, page_line, vmalloc_json
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view


def _vmalloc_lines(result: VmallocList, width: Width) -> Iterator[Line]:
    yield line(
        ("VMAP_AREA         VM_STRUCT         ADDRESS RANGE                            SIZE  KIND, CALLER", "label")
    )
    for area, caller in result.areas:
        kinds = " ".join(area.kinds) or f"flags {area.flags:#x}"
        physical = f" phys={area.physical:#x}" if area.physical else ""
        yield line(
            f"{area.area:016x}  {area.vm:016x}  {area.start:016x} - {area.end:016x} {area.end - area.start:>10}"
            f"  {kinds}{physical}  ",
            (caller or "", "symbol"),
        )
    yield from problem_lines(result.problems)


def _vmalloc_json(result: VmallocList) -> Json:
    return {"areas": [vmalloc_json(area, caller) for area, caller in result.areas], "problems": list(result.problems)}


def _page_lines(result: PageList, width: Width) -> Iterator[Line]:
    for page, owner in result.pages:
        yield page_line(page)
        yield from owner_lines(owner)
    if result.more:
        yield line("more pages are left out: --limit shows more")
    yield from problem_lines(result.problems)


def _page_json(result: PageList) -> Json:
    return {
        "pages": [page_json(page, owner) for page, owner in result.pages],
        "more": result.more,
        "problems": list(result.problems),
    }


def _offset_lines(result: PerCpuOffsets, width: Width) -> Iterator[Line]:
    for cpu, offset in enumerate(result.offsets):
        yield line(f"  CPU {cpu}: {offset:016x}")


def _offset_json(result: PerCpuOffsets) -> Json:
    return {"offsets": [hexadecimal(offset) for offset in result.offsets]}


def _flag_lines(result: FlagNames, width: Width) -> Iterator[Line]:
    for value, names in result.values:
        yield line(f"{value:016x}: ", (" ".join(names) or "none", "symbol"))
    if result.values:
        return
    yield line(("BIT  VALUE             NAMES", "label"))
    for bit, names in sorted(result.bits.items()):
        yield line(f"{bit:>3}  {1 << bit:016x}  ", (" ".join(names), "symbol"))


def _flag_json(result: FlagNames) -> Json:
    return {
        "bits": {str(bit): list(names) for bit, names in sorted(result.bits.items())},
        "values": [{"value": hexadecimal(value), "names": list(names)} for value, names in result.values],
    }


def _huge_lines(result: HugePages, width: Width) -> Iterator[Line]:
    yield line(("HSTATE            SIZE        TOTAL      FREE  RESERVED   SURPLUS  NAME", "label"))
    for pool in result.pools:
        size = f"{pool.size >> 20}M"
        yield line(
            f"{pool.address:016x}  {size:>6} {pool.total:>10} {pool.free:>9} {pool.reserved:>9} {pool.surplus:>9}  ",
            (pool.name, "symbol"),
        )
    yield from problem_lines(result.problems)


def huge_pool_json(pool: HugePagePool) -> Json:
    """HUGEPOOL of the contract."""
    return {
        "hstate": hexadecimal(pool.address),
        "name": pool.name,
        "size": pool.size,
        "total": pool.total,
        "free": pool.free,
        "reserved": pool.reserved,
        "surplus": pool.surplus,
    }


def _huge_json(result: HugePages) -> Json:
    return {"pools": [huge_pool_json(pool) for pool in result.pools], "problems": list(result.problems)}


view(VmallocList, text=_vmalloc_lines, json=_vmalloc_json)
view(PageList, text=_page_lines, json=_page_json)
view(PerCpuOffsets, text=_offset_lines, json=_offset_json)
view(FlagNames, text=_flag_lines, json=_flag_json)
view(HugePages, text=_huge_lines, json=_huge_json)
