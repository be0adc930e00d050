"""How do slab caches, slabs and objects look?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orcdbg.commands.kmem_slabs import CacheContents, ListedObject, ListedSlab, SlabCaches, SlabContents
from orcdbg.subsystems.slab import CacheUsage, ObjectState
from orcdbg.views.kmem import place_word, proof_word
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, hexadecimal, view

_HEADER = "CACHE             OBJSIZE  ALLOCATED     TOTAL    SLABS  SSIZE  NAME"


def _cache_line(usage: CacheUsage, merged: Sequence[str]) -> Line:
    cache = usage.cache
    allocated = "-" if usage.allocated is None else usage.allocated
    total = "-" if usage.objects is None else usage.objects
    slabs = "-" if usage.slabs is None else usage.slabs
    size = f"{4 << min(cache.order, 30)}k"
    also = f"  (also {', '.join(merged)})" if merged else f"  ({cache.users} users)" if cache.is_merged else ""
    return line(
        f"{cache.address:016x}  {cache.object_size:>7}  {allocated:>9} {total:>9} {slabs:>8}  {size:>5}  ",
        (cache.name, "symbol"),
        (also, "note"),
    )


def _list_lines(result: SlabCaches, width: Width) -> Iterator[Line]:
    yield line((_HEADER, "label"))
    for usage, merged in result.caches:
        yield _cache_line(usage, merged)
        yield from problem_lines(usage.problems)
    yield from problem_lines(result.problems)


def _contents_lines(result: SlabContents, width: Width) -> Iterator[Line]:
    for contents in result.caches:
        yield line((_HEADER, "label"))
        yield _cache_line(contents.usage, contents.merged)
        for slab in contents.slabs:
            yield from _slab_lines(slab)
        if contents.more:
            yield line(f"{contents.more} more slabs: --limit shows more")
        yield from problem_lines(contents.problems)


_MARKS = {ObjectState.ALLOCATED: "  ", ObjectState.FREE: "- ", ObjectState.UNKNOWN: "? "}


def _slab_lines(listed: ListedSlab) -> Iterator[Line]:
    slab = listed.slab
    cpu = f" (CPU {listed.cpu})" if listed.cpu is not None else ""
    free = sum(each.state is ObjectState.FREE for each in listed.objects)
    yield line(
        (f"  SLAB {slab.page:016x}", "header"),
        f"  memory {slab.start:016x}  {slab.objects} objects, {free} free; {listed.place.value}{cpu}",
    )
    for each in listed.objects:
        cpu = f" (CPU {each.cpu})" if each.cpu is not None else ""
        state = (
            each.state.value if each.state is ObjectState.ALLOCATED else f"{each.state.value}, {each.proof.value}{cpu}"
        )
        yield line((f"    {_MARKS[each.state]}", "mark"), f"{each.address:016x}  {state}")


def cache_json(usage: CacheUsage, merged: Sequence[str]) -> Json:
    """SLABCACHE of the contract."""
    cache = usage.cache
    return {
        "cache": hexadecimal(cache.address),
        "name": cache.name,
        "merged": list(merged),
        "users": cache.users,
        "object_size": cache.object_size,
        "size": cache.size,
        "objects_per_slab": cache.objects_per_slab,
        "order": cache.order,
        "slabs": usage.slabs,
        "objects": usage.objects,
        "allocated": usage.allocated,
        "free": usage.free,
        "partial": usage.partial,
        "debug": sorted(cache.debug),
        "problems": list(usage.problems),
    }


def _list_json(result: SlabCaches) -> Json:
    return {
        "caches": [cache_json(usage, merged) for usage, merged in result.caches],
        "problems": list(result.problems),
    }


def _contents_json(result: SlabContents) -> Json:
    return {"contents": [contents_json(contents) for contents in result.caches]}


def contents_json(contents: CacheContents) -> Json:
    """SLABCONTENTS of the contract."""
    return {
        "cache": cache_json(contents.usage, contents.merged),
        "slabs": [slab_json(slab) for slab in contents.slabs],
        "more": contents.more,
        "problems": list(contents.problems),
    }


def slab_json(listed: ListedSlab) -> Json:
    """SLAB of the contract."""
    return {
        "slab": hexadecimal(listed.slab.page),
        "memory": hexadecimal(listed.slab.start),
        "in_use": listed.slab.in_use,
        "place": place_word(listed.place),
        "cpu": listed.cpu,
        "objects": [listed_object_json(each) for each in listed.objects],
    }


def listed_object_json(each: ListedObject) -> Json:
    """SLABOBJECT of the contract."""
    return {
        "object": hexadecimal(each.address),
        "state": each.state.value,
        "proof": proof_word(each.proof),
        "cpu": each.cpu,
    }


view(SlabCaches, text=_list_lines, json=_list_json)
view(SlabContents, text=_contents_lines, json=_contents_json)
