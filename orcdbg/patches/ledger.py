"""What covers this address, and what should the text there be after all passes?

Places of different passes overlap (an alternative on a paravirt call). Overlapping places form a cluster; a cluster is
replayed as a whole, on its own, when somebody asks about it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
        covering = [site for site in self.sites if site.address <= address < site.end]
        return covering[-1] if covering else self.sites[-1]


class _Index(NamedTuple):
    """Where everything is: a row for each cluster, and a row for each place of all passes, both by address.

    Attributes:
        starts: of each cluster, its first address.
        ends: likewise, the first address after it.
        firsts: likewise, the row of its first place.
        owners: of each place, the number of its pass.
        numbers: likewise, its index in that pass.
    """

    starts: U64Array
    ends: U64Array
    firsts: U64Array
    owners: U64Array
    numbers: U64Array


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
    def _index(self) -> _Index:
        spans = [known_spans(the_pass) for the_pass in self.passes]
        none = np.empty(0, np.uint64)
        starts = np.concatenate([each.starts for each in spans] or [none])
        sizes = np.concatenate([each.sizes for each in spans] or [none])
        owners = np.concatenate([np.full(len(each.starts), i, np.uint64) for i, each in enumerate(spans)] or [none])
        numbers = np.concatenate([np.arange(len(each.starts), dtype=np.uint64) for each in spans] or [none])
        if not len(starts):
            return _Index(none, none, none, none, none)

        order = np.argsort(starts, kind="stable")
        starts, sizes = starts[order], sizes[order]
        # A place begins a cluster if it starts behind everything that starts before it.
        reach = np.maximum.accumulate(starts + sizes)
        firsts = np.flatnonzero(np.concatenate(([True], starts[1:] >= reach[:-1])))
        lasts = np.append(firsts[1:], len(starts)) - 1
        return _Index(starts[firsts], reach[lasts], firsts.astype(np.uint64), owners[order], numbers[order])

    @property
    def mechanisms(self) -> list[str]:
        """The mechanisms of the passes."""
        return sorted({the_pass.mechanism for the_pass in self.passes})

    def __len__(self) -> int:
        """Number of clusters."""
        return len(self._index.starts)

    def clusters(self, mechanism: str | None = None) -> Iterator[Cluster]:
        """All clusters, by address; with `mechanism` only those that a pass of that name has a place in."""
        numbers: Iterable[int] = range(len(self))
        if mechanism is not None:
            owners = [number for number, the_pass in enumerate(self.passes) if the_pass.mechanism == mechanism]
            is_owned = np.isin(self._index.owners, np.array(owners, dtype=np.uint64))
            rows = np.flatnonzero(is_owned).astype(np.uint64)
            numbers = sorted(set((np.searchsorted(self._index.firsts, rows, side="right") - 1).tolist()))
        return (self._cluster(number) for number in numbers)

    def find(self, address: int) -> Cluster | None:
        """The cluster that covers a run-time address, in logarithmic time."""
        number = int(np.searchsorted(self._index.starts, np.uint64(address), side="right")) - 1
        if number < 0 or address >= int(self._index.ends[number]):
            return None
        return self._cluster(number)

    def between(self, start: int, end: int) -> list[Cluster]:
        """The clusters that touch [start, end), by address."""
        first = int(np.searchsorted(self._index.ends, np.uint64(start), side="right"))
        last = int(np.searchsorted(self._index.starts, np.uint64(end), side="left"))
        return [self._cluster(number) for number in range(first, last)]

    def _cluster(self, number: int) -> Cluster:
        if number not in self._replayed:
            self._replayed[number] = self._replay(number)
        return self._replayed[number]

    def _replay(self, number: int) -> Cluster:
        """Runs all passes over one cluster, pass by pass and in each pass in its own order."""
        index = self._index
        address, end = int(index.starts[number]), int(index.ends[number])
        try:
            image = self._built.read(address, end - address)
        except MemoryFault:
            return Cluster(address, bytes(end - address), None, ())

        first = int(index.firsts[number])
        last = int(index.firsts[number + 1]) if number + 1 < len(index.firsts) else len(index.owners)
        rows = sorted(zip(index.owners[first:last].tolist(), index.numbers[first:last].tolist(), strict=True))

        text = WorkingText(address, image)
        sites: list[PatchSite] = []
        for order, (owner, place) in enumerate(rows):
            site = self._apply(self.passes[owner], place, text, order)
            if site is not None:
                sites.append(site)
        expected = bytes(text.data) if text.knows(address, end - address) else None
        return Cluster(address, image, expected, tuple(sites))

    def _apply(self, the_pass: PatchPass, place: int, text: WorkingText, order: int) -> PatchSite | None:
        """One pass at one place: its site, None where it leaves the place alone."""
        span = the_pass.spans()
        start, size = int(span.starts[place]), int(span.sizes[place])
        image = self._built.read(start, size)
        try:
            applied = the_pass.apply(place, text)
        except CANNOT_TELL as error:
            text.lose(start, size)
            return PatchSite(the_pass.mechanism, start, size, "?", image, None, str(error), order)
        if applied is None:
            return None
        after = text.read(start, size) if text.knows(start, size) else None
        return PatchSite(the_pass.mechanism, start, size, applied.name, image, after, applied.decided_by, order)
