"""One rule over many places: what is gathered is what is there, and every byte has the owner that changed it last."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.reading import self_relative
from orcdbg.patches.site import Applied, Undecidable, WorkingText, make_spans
from orcdbg.patches.sweep import UNKNOWN, IntArray, Sweep, WholeText, Written, replay_pass
from orcdbg.patches.tables import branch_targets, branches

BASE = 0xFFFF_FFFF_8100_0000


class Filler(Sweep):
    """Writes one byte value over all of its places but those that it must not touch."""

    mechanism = "filler"
    table = ".filler"

    def __init__(self, places: list[int], size: int, value: int, unknown: frozenset[int] = frozenset()) -> None:
        self.places = make_spans([BASE + at for at in places], [size] * len(places))
        self._size = size
        self._value = value
        self._unknown = unknown

    def rule(self, rows: IntArray, text: WorkingText) -> Iterator[Written]:
        """The value, everywhere."""
        if not self._unknown.isdisjoint(rows.tolist()):
            raise Undecidable("nobody knows")
        yield Written(rows, np.full((len(rows), self._size), self._value, dtype=np.uint8))

    def describe(self, row: int) -> Applied:
        """Its name."""
        return Applied("fill", "always")


@given(st.binary(min_size=1, max_size=64), st.lists(st.integers(-8, 72), max_size=20), st.integers(1, 8))
def test_gather_reads_what_is_there_and_zeros_outside(data: bytes, offsets: list[int], size: int) -> None:
    """gather(text)[i] == text padded with zeros on both sides, at i."""
    text = WorkingText(BASE, data)
    padded = bytes(16) + data + bytes(96)
    found = text.gather(np.array([BASE + at for at in offsets], dtype=np.uint64), size)
    assert [bytes(row) for row in found] == [padded[16 + at : 16 + at + size] for at in offsets]


@given(st.lists(st.integers(-8, 72), max_size=20), st.integers(1, 8))
def test_scattered_rows_that_leave_the_text_are_not_written(offsets: list[int], size: int) -> None:
    """scatter writes whole rows or nothing."""
    text = WorkingText(BASE, bytes(64))
    text.scatter(np.array([BASE + at for at in offsets], dtype=np.uint64), np.full((len(offsets), size), 7, np.uint8))
    expected = bytearray(64)
    for at in offsets:
        if at >= 0 and at + size <= 64:
            expected[at : at + size] = bytes([7]) * size
    assert bytes(text.data) == expected


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True), st.integers(1, 4))
def test_one_place_and_all_places_follow_the_same_rule(places: list[int], size: int) -> None:
    """apply(i) for every i == sweep."""
    the_pass = Filler(places, size, 0x90)
    one, every = WholeText(BASE, bytearray(64)), WholeText(BASE, bytearray(64))
    for index, at in enumerate(places):
        if at + size <= 64:
            the_pass.apply(index, one)
    replay_pass(the_pass, every)
    assert one.data == every.data


def test_a_byte_belongs_to_the_pass_that_changed_it_last() -> None:
    """Writing what is there already takes nothing from an earlier pass, and makes a free byte known."""
    text = WholeText(BASE, bytearray(8))
    for owner, the_pass in enumerate((Filler([0], 4, 1), Filler([2], 4, 1), Filler([3], 1, 2), Filler([6], 2, 0)), 1):
        text.owner = owner
        replay_pass(the_pass, text)
    assert text.owners.tolist() == [1, 1, 1, 3, 2, 2, 4, 4]


def test_one_undecidable_place_does_not_spoil_the_others() -> None:
    """Only its own bytes are unknown, and the message names its table and entry."""
    text = WholeText(BASE, bytearray(32))
    text.owner = 1
    sites, problems = replay_pass(Filler([0, 4, 8, 12, 16], 4, 1, frozenset({3})), text)
    assert sites == 5
    assert text.owners.tolist() == [1] * 12 + [1 | UNKNOWN] * 4 + [1] * 4 + [0] * 12
    assert len(problems) == 1
    assert "entry 3 of .filler" in problems[0]


def test_places_outside_the_text_are_left_out() -> None:
    """A site that begins before the text, or ends behind it, is none of this text's."""
    text = WholeText(BASE, bytearray(8))
    assert replay_pass(Filler([-2, 0, 6, 100], 4, 1), text)[0] == 1


@given(st.binary(max_size=40), st.sampled_from([4, 8, 16]))
def test_any_bytes_are_a_table_of_addresses(table: bytes, stride: int) -> None:
    """Each word counts from its own place; an incomplete last entry is left out."""
    found = self_relative(table, BASE, stride)
    words = [int.from_bytes(table[at : at + 4], "little", signed=True) for at in range(0, len(table), stride)]
    places = [(BASE + stride * number + word) % (1 << 64) for number, word in enumerate(words)]
    assert found.tolist() == places[: len(table) // stride]


@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 30)), max_size=8), st.sampled_from([0xE8, 0xE9]))
def test_a_branch_goes_where_it_was_made_to_go(pairs: list[tuple[int, int]], opcode: int) -> None:
    """branch_targets(branches(x)) == x."""
    starts = np.array([BASE + start for start, _ in pairs], dtype=np.uint64)
    targets = np.array([BASE + target for _, target in pairs], dtype=np.uint64)
    assert branch_targets(starts, branches(opcode, starts, targets)).tolist() == targets.tolist()
