"""Pieces that overlap."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.intervals import Pieces


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12), st.integers(0, 41))
@settings(max_examples=200, deadline=None)
def test_the_later_of_overlapping_pieces_holds_an_address(ends: list[tuple[int, int]], address: int) -> None:
    """As painting one after another would leave it."""
    painted: dict[int, int] = {}
    for piece, (start, end) in enumerate(ends):
        painted.update(dict.fromkeys(range(start, end), piece))
    pieces = Pieces(ends)
    found = pieces.find(address)
    assert (None if found is None else found.piece) == painted.get(address)
    assert {at: one.piece for one in pieces for at in range(one.start, one.end)} == painted
    starts = [one.start for one in pieces if one.start > address]
    assert pieces.next_start(address) == (min(starts) if starts else None)
