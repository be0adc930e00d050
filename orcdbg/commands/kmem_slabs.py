"""kmem -s, kmem -S: slab caches, their slabs and objects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.subsystems.slab import (
    MAX_CACHES,
    MAX_SLABS,
    CacheUsage,
    ObjectState,
    Proof,
    Slab,
    SlabAllocator,
    SlabCache,
    SlabPlace,
)


@dataclass(frozen=True, slots=True)
class SlabCaches(Result):
    """Slab caches and how full they are, each with the names that were merged into it."""

    caches: Sequence[tuple[CacheUsage, Sequence[str]]]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object of a slab: its address, state, by what, and whose list that is."""

    address: int
    state: ObjectState
    proof: Proof
    cpu: int | None


@dataclass(frozen=True, slots=True)
class ListedSlab:
    """A slab, on which list it is, and its objects."""

    slab: Slab
    place: SlabPlace
    cpu: int | None
    objects: Sequence[ListedObject]


@dataclass(frozen=True, slots=True)
class CacheContents:
    """The slabs of a cache; `more` counts the slabs that the limit left out."""

    usage: CacheUsage
    merged: Sequence[str]
    slabs: Sequence[ListedSlab]
    more: int
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class SlabContents(Result):
    """Slabs and objects of some caches."""

    caches: Sequence[CacheContents]


def cache_list(debugger: Debugger, arguments: argparse.Namespace) -> SlabCaches:
    """`kmem -s`."""
    slabs = debugger.session.kernel_memory.slabs
    budget = Budget(MAX_CACHES)
    named = [find_cache(debugger, slabs, word) for word in arguments.words]
    caches = named or list(slabs.caches(budget))
    listed = [(slabs.usage(cache), slabs.names_merged_into(cache)) for cache in caches]
    return SlabCaches(listed, budget.lines())


def find_cache(debugger: Debugger, slabs: SlabAllocator, word: str) -> SlabCache:
    """The cache that a word names: its name, or the address of its `kmem_cache`."""
    try:
        return slabs.find_cache(word)
    except NotFound as unknown:
        try:
            return slabs.cache(int(word, 16))
        except ValueError:
            raise unknown from None


def cache_contents(debugger: Debugger, arguments: argparse.Namespace) -> SlabContents:
    """`kmem -S`."""
    if not arguments.words:
        raise UsageError("kmem -S needs the name of a slab cache", "`kmem -s` lists them")
    slabs = debugger.session.kernel_memory.slabs
    return SlabContents(
        [_contents(slabs, find_cache(debugger, slabs, word), arguments.limit) for word in arguments.words]
    )


def _contents(slabs: SlabAllocator, cache: SlabCache, limit: int) -> CacheContents:
    budget = Budget(MAX_SLABS)
    listed: list[ListedSlab] = []
    more = shown = 0
    for slab in slabs.slabs_of(cache, budget):
        if shown >= limit:
            more += 1
            continue
        place, cpu = slabs.place_of(slab)
        objects = [ListedObject(*each) for each in slabs.objects_of(slab)]
        shown += len(objects) + 1
        listed.append(ListedSlab(slab, place, cpu, objects))
    return CacheContents(slabs.usage(cache), slabs.names_merged_into(cache), listed, more, budget.lines())
