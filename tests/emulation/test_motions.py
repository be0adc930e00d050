"""Words that move an emulation: the limits hold for each as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from orcdbg.emulation.emulator import Limits
from orcdbg.emulation.motions import Motions
from orcdbg.emulation.stops import Stop, StoppedBy
from tests.build.emulated_cpu import TEXT, emulator

READS_TIME_FOR_EVER = bytes.fromhex("0f31 ebfc")  # rdtsc, which is gone past; jmp TEXT
CALLS_FOR_EVER = bytes.fromhex("e802000000 ebf9 c3")  # call TEXT+7; jmp TEXT; ret

WORDS: dict[str, Callable[[Motions], Stop]] = {
    "run": lambda motions: motions.run(10**9),
    "next": lambda motions: motions.next(10**9),
    "finish": lambda motions: motions.finish(TEXT + 0x100, 0),
}


def moved(code: bytes, word: str, limits: Limits, traced: bool) -> tuple[StoppedBy, str | None]:
    """How a word ends over endless code, in no more time than allowed."""
    motions = Motions(emulator(code, limits))
    motions.skip = True
    motions.observe = (lambda: None) if traced else None
    began = time.monotonic()
    stop = WORDS[word](motions)
    assert time.monotonic() - began < 5
    return stop.by, stop.why


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("code", [READS_TIME_FOR_EVER, CALLS_FOR_EVER])
@pytest.mark.parametrize("word", list(WORDS))
def test_a_word_ends_at_its_limits(word: str, code: bytes, traced: bool) -> None:
    """However many calls it steps over, and instructions that are not emulated it goes past."""
    assert moved(code, word, Limits(instructions=500), traced) == (StoppedBy.LIMIT, "more than 500 instructions")
    assert moved(code, word, Limits(seconds=0.1), traced) == (StoppedBy.LIMIT, "more than 0.1 s")


def test_the_next_word_has_limits_of_its_own() -> None:
    """A limit is no end of the emulation."""
    motions = Motions(emulator(CALLS_FOR_EVER, Limits(instructions=500)))
    for count in (500, 1000, 1500):
        assert motions.run(501).by == StoppedBy.LIMIT
        assert motions.emulator.executed == count
