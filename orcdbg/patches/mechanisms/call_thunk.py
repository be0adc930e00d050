"""Which calls are counted, to fill the CPU's return stack in time, and where is the counting instruction?

Mirrors arch/x86/kernel/callthunks.c (since 6.2). Sites are in `.call_sites`; the padding in front of each function that is
called gets an instruction that counts, and the calls are moved there. CALL_DEPTH decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.build import Build
from orcdbg.patches.mechanism import Mechanism
from orcdbg.patches.mechanisms.static_call import static_called
from orcdbg.patches.site import Applied, PatchPass, Spans, U64Array, Undecidable, WorkingText, make_spans
from orcdbg.patches.state.padding import CALL_SITES, PAD_SIZE, Pads, counts_alternatives
from orcdbg.patches.sweep import IntArray, Sweep, Written
from orcdbg.patches.tables import branch_targets, branches, built_bytes, section_sites

_CALL, _NOP = 0xE8, 0x90


class CountedCalls(Sweep):
    """`patch_call()` as a replay pass: the calls.

    Args:
        sites: run-time addresses of the calls.
        pads: the padding that they may go to.
    """

    mechanism = "call-thunk"
    table = CALL_SITES

    def __init__(self, sites: U64Array, pads: Pads) -> None:
        self.places = make_spans(sites, np.full(len(sites), 5))
        self._pads = pads

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """Calls of functions with padding go into the padding."""
        starts = self.places.starts[rows]
        now = text.gather(starts, 5)
        calls = now[:, 0] == _CALL
        rows, starts = rows[calls], starts[calls]
        before = branch_targets(starts, now[calls])
        after = self._pads.translated(before)
        moved = before != after
        yield Written(rows[moved], branches(_CALL, starts[moved], after[moved]))

    def describe(self, row: int) -> Applied:
        """Why."""
        return Applied("counted call", "x86_return_thunk = call_depth_return_thunk")


class PadsPass(Sweep):
    """`patch_dest()` as a replay pass: the counting instructions in front of the functions that are called.

    Args:
        functions: run-time addresses of what is called; one without padding, or outside the text under replay, is left out.
        pads: the padding.
    """

    mechanism = "call-thunk"
    table = CALL_SITES

    def __init__(self, functions: U64Array, pads: Pads) -> None:
        low, high = pads.text
        # Padding elsewhere is filled too, but that is no part of the text under replay.
        unique = np.unique(functions[(functions >= np.uint64(low)) & (functions < np.uint64(high))])
        found = unique[pads.exist(unique)]
        self.places = make_spans(found - np.uint64(PAD_SIZE), np.full(len(found), PAD_SIZE))
        self._pads = pads

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """Padding becomes the counting instruction."""
        starts = self.places.starts[rows]
        empty = (text.gather(starts, PAD_SIZE) == _NOP).all(axis=1)
        yield Written(rows[empty], self._pads.code(starts[empty]))

    def describe(self, row: int) -> Applied:
        """Why."""
        return Applied("call depth", "x86_return_thunk = call_depth_return_thunk")


def call_destinations(image: Image, sites: U64Array, slide: int) -> U64Array:
    """Run-time addresses of the functions that calls were built to call.

    Args:
        image: text as built, at link addresses.
        sites: run-time addresses of the calls; what is no call there is left out.
        slide: run-time minus link addresses.
    """
    rows = built_bytes(image, sites - np.uint64(slide), 5)
    found: U64Array = branch_targets(sites, rows)[rows[:, 0] == _CALL]
    return found


def counting_passes(
    image: Image, linux: Linux, pads: Pads, sites: U64Array, functions: Sequence[int], rewritten: U64Array | None = None
) -> list[PadsPass | CountedCalls]:
    """The passes of a machine that counts calls; none for another.

    Args:
        image: text as built.
        linux: the kernel.
        pads: the padding.
        sites: run-time addresses of the calls to count.
        functions: what is called besides, by calls that other passes made.
        rewritten: where those passes made calls that are to be counted too.
    """
    if not pads.used:
        return []
    low, high = pads.text
    inside = sites[(sites >= np.uint64(low)) & (sites < np.uint64(high))]
    called = np.concatenate([call_destinations(image, inside, linux.slide), np.array(functions, dtype=np.uint64)])
    every = sites if rewritten is None else np.unique(np.concatenate([sites, rewritten]))
    return [PadsPass(called, pads), CountedCalls(every, pads)]


@runtime_checkable
class PutsCalls(Protocol):
    """A pass whose places may hold other calls after it than as built: that of alternatives."""

    def spans(self) -> Spans:
        """Its places."""

    def calls(self, others: U64Array) -> list[tuple[int, int]]:
        """The (address, target) pairs of the calls that its places hold now."""


def _counted_sites(build: Build) -> U64Array:
    """Where calls are counted; none on a machine that counts none, or that does not tell."""
    sites = section_sites(build.image, CALL_SITES, build.linux.slide)
    try:
        is_used = len(sites) > 0 and build.pads.used
    except Undecidable:
        is_used = False
    return sites if is_used else sites[:0]


def calls_in_replacements(build: Build) -> list[CountedCalls]:
    """The calls in replacements that are counted before those are used: a module's, whose replacements lie in its text."""
    sites = _counted_sites(build)
    low, high = build.pads.text
    is_inside = (sites >= np.uint64(low)) & (sites < np.uint64(high))
    return [CountedCalls(np.sort(sites[is_inside]), build.pads)]


def _covered(addresses: U64Array, spans: Spans) -> npt.NDArray[np.bool_]:
    """For each address, whether one of the spans holds it; spans of one start have one size."""
    order = np.argsort(spans.starts, kind="stable")
    starts, sizes = spans.starts[order], spans.sizes[order]
    before = np.searchsorted(starts, addresses, side="right") - 1
    if not len(starts):
        return np.zeros(len(addresses), dtype=np.bool_)
    return (before >= 0) & (addresses < starts[before] + sizes[before])


def _passes(build: Build, earlier: Sequence[PatchPass]) -> list[PadsPass | CountedCalls]:
    sites = _counted_sites(build)
    if not len(sites):
        return []

    functions = [*static_called(build).tolist(), *build.called_besides().tolist()]
    if not counts_alternatives(build.linux):
        return counting_passes(build.image, build.linux, build.pads, sites, functions)

    # A call of the table that an alternative overwrote is not counted; one that the alternative put there is.
    sites = np.sort(sites)
    low, high = build.pads.text
    is_covered = np.zeros(len(sites), dtype=np.bool_)
    rewritten: list[int] = []
    for alternatives in (each for each in earlier if isinstance(each, PutsCalls)):
        is_covered |= _covered(sites, alternatives.spans())
        for address, target in alternatives.calls(sites):
            if low <= address < high:
                rewritten.append(address)
                functions.append(target)
    places = np.array(rewritten, dtype=np.uint64)
    return counting_passes(build.image, build.linux, build.pads, sites[~is_covered], functions, places)


CALL_THUNK = Mechanism(CountedCalls.mechanism, _passes, (CALL_SITES,))
