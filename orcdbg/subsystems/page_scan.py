"""Which page frames are there, and which of them are slabs of one cache? One pass over the whole array of `struct page`.

A machine of a terabyte has 16 GiB of them, so that numpy looks at them, some thousands at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.base.reading import U64Array
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.subsystems.pages import Pages
from orcdbg.subsystems.zones import nodes_with_addresses

# Page frames of 64 TiB: what a zone claims to span is bounded by it.
MAX_FRAMES = 1 << 34
_AT_ONCE = 1 << 15


def frame_ranges(pages: Pages, budget: Budget) -> list[tuple[int, int]]:
    """[start, end) of the page frames that the zones span, by number, without those behind all memory.

    Args:
        pages: reads pages.
        budget: has what cannot be read.
    """
    linux = pages.program.linux
    found = []
    for number, node in nodes_with_addresses(linux):
        try:
            start = linux.member("pglist_data", "node_start_pfn", node)
            spanned = linux.member("pglist_data", "node_spanned_pages", node)
        except MemoryFault as error:
            budget.note_error(f"memory node {number}", node, error)
            continue
        end = min(start + spanned, pages.places.memory_end // PAGE, pages.memory_end() // PAGE, MAX_FRAMES)
        if start < end:
            found.append((start, end))
    return sorted(found)


def blocks(pages: Pages, budget: Budget) -> Iterator[tuple[int, U64Array]]:
    """The `struct page`s of all frames: the number of a first frame, and words of its page and of those behind it.

    Frames without memory, whose part of the array is not mapped, are left out.

    Raises:
        UnsupportedFormat: a `struct page` is of no whole number of words.
    """
    if pages.size % 8:
        raise UnsupportedFormat("struct page", f"{pages.size} bytes")
    for start, end in frame_ranges(pages, budget):
        for first in range(start, end, _AT_ONCE):
            yield from _readable(pages, first, min(_AT_ONCE, end - first))


def _readable(pages: Pages, first: int, count: int) -> Iterator[tuple[int, U64Array]]:
    """As many at once as can be read; halved where some cannot, down to what a page of the array holds."""
    pending = [(first, count)]
    least = PAGE // pages.size
    while pending:
        start, length = pending.pop()
        address = pages.places.page_at(start)
        # What no table maps costs one look and not a thousand.
        if length == count and not (pages.is_mapped(address) or pages.is_mapped(address + length * pages.size - 1)):
            return
        try:
            data = pages.program.memory.read(address, length * pages.size)
        except MemoryFault:
            if length > least:
                half = length // 2
                pending += [(start + half, length - half), (start, half)]
            continue
        words: U64Array = np.frombuffer(data, dtype="<u8").reshape(length, pages.size // 8)
        yield start, words


def slabs_of(pages: Pages, cache: int, cache_offset: int, budget: Budget) -> list[int]:
    """Addresses of the `struct page`s that are slabs of one cache, on whatever list.

    Args:
        pages: reads pages.
        cache: address of its `kmem_cache`.
        cache_offset: of a slab's pointer to it.
        budget: a slab takes one node.
    """
    found: list[int] = []
    for first, words in blocks(pages, budget):
        candidates = np.flatnonzero(words[:, cache_offset // 8] == np.uint64(cache))
        for row in candidates.tolist():
            data = words[row].tobytes()
            address = pages.places.page_at(first + row)
            name = pages.type_name(pages.type_word_in(data))
            if pages.head_of(address, data) != address or not pages.is_slab(pages.flags_in(data), name):
                continue
            if not budget.take("slabs", address):
                return found
            found.append(address)
    return found
