"""Replaying the kernel's own patches: on tables made here, and on the sample's."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import BytesSpace
from orcdbg.patches.alternative_table import AlternativeTable, entry_size
from orcdbg.patches.ledger import PatchLedger
from orcdbg.patches.site import Applied, Spans, Undecidable, WorkingText, make_spans
from orcdbg.patches.state import nops
from orcdbg.target.session import Session

BASE = 0xFFFFFFFF81000000


class Writer:
    """A pass that writes given bytes at given places."""

    mechanism = "writer"

    def __init__(self, places: dict[int, bytes], undecidable: bool = False) -> None:
        self._places = list(places.items())
        self._undecidable = undecidable

    def spans(self) -> Spans:
        """The places."""
        return make_spans([BASE + at for at, _ in self._places], [len(data) for _, data in self._places])

    def apply(self, index: int, text: WorkingText) -> Applied | None:
        """Writes them."""
        if self._undecidable:
            raise Undecidable("the state is missing")
        at, data = self._places[index]
        text.write(BASE + at, data)
        return Applied("write", "always")


def built(size: int = 64) -> BytesSpace:
    """Text as built: zeros."""
    return BytesSpace(BASE, bytes(size), lambda address, count: UnsupportedFormat("text", "out of it"))


def test_overlapping_sites_form_one_cluster_and_the_last_pass_wins() -> None:
    """Passes run in order over the whole cluster, and each site says what its pass left."""
    ledger = PatchLedger([Writer({0: b"aaaa", 20: b"zz"}), Writer({2: b"bbbb"})], built())
    first = ledger.find(BASE + 5)
    assert first is not None
    assert (first.address, first.expected) == (BASE, b"aabbbb")
    assert [(site.order, site.expected) for site in first.sites] == [(0, b"aaaa"), (1, b"bbbb")]


@pytest.mark.parametrize(("at", "covered"), [(-1, False), (0, True), (3, True), (4, False), (19, False), (20, True)])
def test_an_address_is_covered_from_a_sites_first_byte_to_its_last(at: int, covered: bool) -> None:
    """Neighbouring bytes belong to nothing."""
    ledger = PatchLedger([Writer({0: b"aaaa", 20: b"zz"})], built())
    assert (ledger.find(BASE + at) is not None) == covered


def test_look_up_by_range_gives_every_cluster_that_touches_it() -> None:
    """Also those that begin before it."""
    ledger = PatchLedger([Writer({0: b"aaaa", 10: b"bb", 30: b"cc"})], built())
    assert [cluster.address - BASE for cluster in ledger.between(BASE + 3, BASE + 11)] == [0, 10]


def test_a_pass_that_cannot_be_decided_leaves_no_expectation() -> None:
    """Better no prediction than one that ignores a pass."""
    found = PatchLedger([Writer({0: b"aa"}, undecidable=True)], built()).find(BASE)
    assert found is not None
    assert found.expected is None
    assert found.sites[0].decided_by == "the state is missing"


def test_an_empty_ledger_covers_nothing() -> None:
    """A kernel without tables is a kernel without patches."""
    assert PatchLedger([], built()).find(BASE) is None


@pytest.mark.parametrize("table", [nops.P6, nops.K8, nops.LONG], ids=lambda table: table.name)
@pytest.mark.parametrize("size", range(1, 40))
def test_nops_fill_exactly_and_decode_as_nops(table: nops.NopTable, size: int) -> None:
    """Every length is filled, by instructions that do nothing."""
    from orcdbg.x86.instructions import decode

    code = table.fill(size)
    found = list(decode(code, 0))
    assert sum(insn.size for insn in found) == len(code) == size
    assert {insn.mnemonic.rstrip("wlq") for insn in found} <= {"nop", "xchg"}


@pytest.mark.parametrize(("layout", "size"), [("<iiHBB", 12), ("<iiHHBB", 14), ("<iiHBBB", 13)])
def test_the_table_layout_is_told_by_its_entries(layout: str, size: int) -> None:
    """Lengths that fit and flags that exist decide, not a version."""
    rows = [struct.pack(layout, 100, 200, 117, *([0] if size == 14 else []), 7, 5, *([0] if size == 13 else []))] * 3
    assert entry_size(b"".join(rows)) == size


def test_a_table_that_fits_no_layout_is_refused() -> None:
    """A replacement longer than its site is damage."""
    with pytest.raises(UnsupportedFormat, match="altinstructions"):
        entry_size(b"\xff" * 11)


def test_entries_of_one_site_share_the_longest_length() -> None:
    """ALTERNATIVE_2 may name a site with two lengths (since 6.9)."""
    rows = b"".join(struct.pack("<iiHHBB", 1000 - 14 * i, 2000, 117, 0, size, 1) for i, size in enumerate((5, 9)))
    table = AlternativeTable(rows, BASE)
    assert [table.entry(i).size for i in range(2)] == [9, 9]


def test_replay_agrees_with_the_samples_memory(sample: Session) -> None:
    """Every alternative and paravirt site of core text is predicted byte for byte, from tables and state alone."""
    text_end = sample.linux.address("_etext")
    clusters = [cluster for cluster in sample.stack_ledger.clusters() if cluster.end <= text_end]
    wrong = [
        sample.names.describe(cluster.address)
        for cluster in clusters
        if cluster.expected != sample.memory.read(cluster.address, len(cluster.image))
    ]
    assert len(clusters) > 2000
    assert wrong == []


def test_replaying_replayed_text_changes_nothing(sample: Session) -> None:
    """A site that a pass wrote is not changed by optimising its NOPs once more: replay is a fixed point."""
    from orcdbg.patches.moved_instructions import optimise_old_nops

    chosen = random.Random(7).sample(list(sample.stack_ledger.clusters()), 200)
    table = nops.choose_nops(sample.linux, False)
    assert table is not None
    for cluster in chosen:
        assert cluster.expected is not None
        assert optimise_old_nops(cluster.expected, table) == cluster.expected


def test_the_ledgers_index_is_sorted_and_disjoint(sample: Session) -> None:
    """What makes its look-up logarithmic."""
    clusters = list(sample.stack_ledger.clusters())
    starts = np.array([cluster.address for cluster in clusters], dtype=np.uint64)
    ends = np.array([cluster.end for cluster in clusters], dtype=np.uint64)
    assert bool((starts[1:] >= ends[:-1]).all())
