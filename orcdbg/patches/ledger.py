"""What covers this address, and what should the text there be after all passes?

Places of different passes overlap (an alternative on a paravirt call). Overlapping places form a cluster; a cluster is
replayed as a whole, on its own, when somebody asks about it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import AddressSpace
from orcdbg.patches.site import CANNOT_TELL, PatchPass, PatchSite, U64Array, WorkingText, known_spans


@dataclass(frozen=True, slots=True)
class Cluster:
    """A stretch of text that passes wrote: `image` as built, `expected` after all of them (None when undecidable).

    Where `image_known` is False, as for a module without its file, `image` only tells the length.
    """

    address: int
    image: bytes
    expected: bytes | None
    sites: tuple[PatchSite, ...]
    image_known: bool = True

    @property
    def end(self) -> int:
        """First address after the cluster."""
        return self.address + len(self.image)

    def covering(self, address: int) -> PatchSite:
        """The last pass that covers the address and wrote something; `sites` must not be empty."""
        found = [site for site in self.sites if site.address <= address < site.end]
        return found[-1] if found else self.sites[-1]


class PatchLedger:
    """All recorded patch sites, by address.

    Args:
        passes: in the order in which this kernel runs them.
        built: text as built, at run-time addresses.
    """

    def __init__(self, passes: Sequence[PatchPass], built: AddressSpace) -> None:
        self.passes = tuple(passes)
        self._built = built
        self._replayed: dict[int, Cluster] = {}

    @functools.cached_property
    def _index(self) -> tuple[U64Array, U64Array, U64Array, U64Array, U64Array]:
        """Start, end and first row of each cluster; then pass and index of each row, sorted by address."""
        spans = [known_spans(p) for p in self.passes]
        starts = np.concatenate([s.starts for s in spans] or [np.empty(0, np.uint64)])
        sizes = np.concatenate([s.sizes for s in spans] or [np.empty(0, np.uint64)])
        owners = np.concatenate([np.full(len(s.starts), i, np.uint64) for i, s in enumerate(spans)] or [starts])
        numbers = np.concatenate([np.arange(len(s.starts), dtype=np.uint64) for s in spans] or [starts])
        order = np.argsort(starts, kind="stable")
        starts, sizes = starts[order], sizes[order]
        reach = np.maximum.accumulate(starts + sizes) if len(starts) else starts
        firsts = np.flatnonzero(np.concatenate(([True], starts[1:] >= reach[:-1]))) if len(starts) else np.empty(0, int)
        lasts = np.append(firsts[1:], len(starts)) - 1 if len(firsts) else firsts
        return starts[firsts], reach[lasts], firsts.astype(np.uint64), owners[order], numbers[order]

    @property
    def mechanisms(self) -> list[str]:
        """The mechanisms of the passes."""
        return sorted({one.mechanism for one in self.passes})

    def __len__(self) -> int:
        """Number of clusters."""
        return len(self._index[0])

    def clusters(self, mechanism: str | None = None) -> Iterator[Cluster]:
        """All clusters, by address; with `mechanism` only those that a pass of that name has a place in."""
        numbers: Iterable[int] = range(len(self))
        if mechanism is not None:
            firsts, owners = self._index[2:4]
            mine = [number for number, one in enumerate(self.passes) if one.mechanism == mechanism]
            rows = np.flatnonzero(np.isin(owners, np.array(mine, dtype=np.uint64))).astype(np.uint64)
            numbers = sorted(set((np.searchsorted(firsts, rows, side="right") - 1).tolist()))
        return (self._cluster(i) for i in numbers)

    def find(self, address: int) -> Cluster | None:
        """The cluster that covers a run-time address, in logarithmic time."""
        starts, ends, *_ = self._index
        index = int(np.searchsorted(starts, np.uint64(address), side="right")) - 1
        return self._cluster(index) if index >= 0 and address < int(ends[index]) else None

    def between(self, start: int, end: int) -> list[Cluster]:
        """The clusters that touch [start, end)."""
        starts, ends, *_ = self._index
        first = int(np.searchsorted(ends, np.uint64(start), side="right"))
        last = int(np.searchsorted(starts, np.uint64(end), side="left"))
        return [self._cluster(i) for i in range(first, last)]

    def _cluster(self, index: int) -> Cluster:
        if index not in self._replayed:
            self._replayed[index] = self._replay(index)
        return self._replayed[index]

    def _replay(self, index: int) -> Cluster:
        """Runs all passes over one cluster, pass by pass and in each pass in its own order."""
        starts, ends, firsts, owners, numbers = self._index
        address, end = int(starts[index]), int(ends[index])
        first = int(firsts[index])
        last = int(firsts[index + 1]) if index + 1 < len(firsts) else len(owners)
        rows = sorted(zip(owners[first:last].tolist(), numbers[first:last].tolist(), strict=True))
        try:
            image = self._built.read(address, end - address)
        except MemoryFault:
            return Cluster(address, bytes(end - address), None, ())
        text, sites = WorkingText(address, image), []
        for order, (owner, number) in enumerate(rows):
            site = self._apply(self.passes[owner], number, text, order)
            sites += [site] if site else []
        return Cluster(address, image, bytes(text.data) if text.knows(address, end - address) else None, tuple(sites))

    def _apply(self, the_pass: PatchPass, number: int, text: WorkingText, order: int) -> PatchSite | None:
        """One pass at one place: its site, None where it leaves the place alone."""
        span = the_pass.spans()
        start, size = int(span.starts[number]), int(span.sizes[number])
        image = self._built.read(start, size)
        try:
            applied = the_pass.apply(number, text)
        except CANNOT_TELL as error:
            text.lose(start, size)
            return PatchSite(the_pass.mechanism, start, size, "?", image, None, str(error), order)
        if applied is None:
            return None
        after = text.read(start, size) if text.knows(start, size) else None
        return PatchSite(the_pass.mechanism, start, size, applied.name, image, after, applied.decided_by, order)
