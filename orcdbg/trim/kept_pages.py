"""Which pages does a file have whose bytes were kept only in part, and what stands in them?"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

from orcdbg.base.intervals import pages_of
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.trim.core_writing import Run


def cut_out(ranges: Sequence[tuple[int, int]], memory: AddressSpace, start: int, size: int) -> bytes:
    """Memory with zeros for what was not kept.

    Args:
        ranges: the kept bytes, [start, end) in physical addresses, rising.
        memory: where they are; nothing else is read of it.
        start: the first physical address.
        size: how many bytes.
    """
    out = bytearray(size)
    first = max(bisect.bisect_right(ranges, (start, 1 << 64)) - 1, 0)
    for kept_start, kept_end in ranges[first:]:
        if kept_start >= start + size:
            break

        low = max(kept_start, start)
        high = min(kept_end, start + size)
        if low < high:
            out[low - start : high - start] = memory.read(low, high - low)
    return bytes(out)


def runs_of(ranges: Sequence[tuple[int, int]], memory: AddressSpace, blank: Iterable[int] = ()) -> list[Run]:
    """The pages to write, as stretches; those whose kept bytes are zeros apart from the others.

    Args:
        ranges: the kept bytes, [start, end) in physical addresses, rising.
        memory: where they are.
        blank: numbers of pages that other readers shall find, with zeros, although nothing of them was kept.
    """
    runs: list[Run] = []
    for page in sorted({*pages_of(ranges), *blank}):
        is_zero = not any(cut_out(ranges, memory, page * PAGE, PAGE))
        last = runs[-1] if runs else None

        if last is not None and page == last.first + last.pages and is_zero == last.is_zero:
            runs[-1] = last._replace(pages=last.pages + 1)
        else:
            runs.append(Run(page, 1, is_zero))
    return runs
