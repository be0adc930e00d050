"""Execution is followed along every branch, and what paths say is brought together where they meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orcdbg.x86.follow import DecodedText, follow, straight

BASE = 0xFFFFFFFF81000000
NOP, RET, JMP_SELF = b"\x90", b"\xc3", b"\xeb\xfe"


class Colours:
    """Follows a set of words: each boundary adds nothing, and where paths meet only common words stay."""

    def __init__(self, code: bytes, refused: frozenset[int] = frozenset()) -> None:
        self.text = DecodedText(code, BASE)
        self.refused = refused
        self.visits: list[int] = []

    def steps(self, address: int, state: frozenset[str]) -> Iterator[tuple[int, frozenset[str]]]:
        """Notes the visit."""
        self.visits.append(address - BASE)
        insn = self.text.instruction(address)
        if insn is not None:
            for target in self.text.successors(insn):
                yield target, state

    def arrive(self, address: int, state: frozenset[str]) -> frozenset[str] | None:
        """Refuses some boundaries."""
        return None if address - BASE in self.refused else state

    def meet(self, known: frozenset[str], arrived: frozenset[str]) -> frozenset[str]:
        """What is common."""
        return known & arrived


def words(text: str) -> frozenset[str]:
    """A state."""
    return frozenset(text.split())


def test_both_ways_of_a_conditional_jump_are_gone_and_a_jump_is_followed() -> None:
    """je +1; nop; nop; jmp over a byte that is never reached."""
    flow = Colours(b"\x74\x01" + NOP + NOP + b"\xeb\x01\x06" + RET)
    found = follow({BASE: words("red")}, flow, 100)
    assert {address - BASE for address in found.states} == {0, 2, 3, 4, 7}
    assert found.is_complete


def test_where_paths_meet_only_what_both_know_remains_and_goes_on_from_there() -> None:
    """Two beginnings run into the same code."""
    flow = Colours(b"\xeb\x02" + NOP + NOP + NOP + RET)
    found = follow({BASE: words("red green"), BASE + 2: words("green blue")}, flow, 100)
    assert found.states[BASE + 3] == words("green blue")
    assert found.states[BASE + 4] == words("green")
    assert found.states[BASE + 5] == words("green")


def test_a_path_that_is_refused_at_a_boundary_takes_nothing_from_the_others() -> None:
    """Whichever arrives first."""

    class Strict(Colours):
        def arrive(self, address: int, state: frozenset[str]) -> frozenset[str] | None:
            return state if address != BASE + 4 or "green" in state else None

    code = b"\xeb\x02" + NOP + NOP + NOP + RET
    for first, second in (("red green", "blue"), ("blue", "red green")):
        flow = Strict(code)
        found = follow({BASE: words(first), BASE + 3: words(second)}, flow, 100)
        assert found.states[BASE + 4] == words("red green")


def test_boundaries_that_are_settled_are_left_alone() -> None:
    """An earlier walk has dealt with them."""
    flow = Colours(NOP + NOP + RET)
    found = follow({BASE: words("red")}, flow, 100, settled={BASE + 1})
    assert set(found.states) == {BASE}


def test_a_loop_ends_when_it_learns_nothing_new() -> None:
    """Once round."""
    flow = Colours(JMP_SELF)
    assert follow({BASE: words("red")}, flow, 100).is_complete
    assert flow.visits == [0]


@pytest.mark.parametrize(("budget", "is_complete"), [(2, False), (3, True), (4, True)])
def test_a_walk_stops_at_its_budget_and_says_so(budget: int, is_complete: bool) -> None:
    """Three boundaries cost three."""
    flow = Colours(NOP + NOP + RET)
    found = follow({BASE: words("red")}, flow, budget)
    assert found.is_complete == is_complete
    assert len(flow.visits) == min(budget, 3)


def test_the_way_to_a_boundary_is_the_one_by_which_it_was_first_reached() -> None:
    """And a boundary that the walk began with has none."""
    flow = Colours(NOP + b"\xeb\x01\x06" + NOP + RET)
    found = follow({BASE: words("red")}, flow, 100)
    assert [address - BASE for address in found.way(BASE + 5)] == [0, 1, 4]
    assert found.way(BASE) == []


def test_text_has_no_instruction_outside_and_none_that_is_cut_off() -> None:
    """A call of which one byte is missing."""
    text = DecodedText(NOP + b"\xe8\0\0\0", BASE)
    assert text.instruction(BASE - 1) is None
    assert text.instruction(BASE + 1) is None
    assert text.instruction(BASE + 5) is None
    nop = text.instruction(BASE)
    assert nop is not None
    assert list(text.successors(nop)) == [BASE + 1]


def test_straight_text_is_gone_through_in_the_order_of_its_bytes() -> None:
    """Jumps and returns do not count, and bytes that are no instruction end it; the end of the last counts."""
    code = NOP + RET + b"\xeb\x10" + NOP + b"\x06" + NOP
    found = list(straight(code, BASE, 0, lambda count, insn: count + insn.size))
    assert found == [(BASE + place, place) for place in (0, 1, 2, 4, 5)]
