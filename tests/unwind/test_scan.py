"""What is guessed above a walk that stopped: over the sample with changed words on its stacks."""

from __future__ import annotations

import pytest

from orcdbg.base.walks import Budget
from orcdbg.kernel.tasks import Task
from orcdbg.orc.effective import Source
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, Mark, StackTrace
from orcdbg.unwind.scan import MAX_ATTEMPTS, MAX_FRAMES, MAX_LINES
from orcdbg.unwind.unwinder import MAX_SCANNED
from orcdbg.views.reasons import words_or_none
from tests.damage import DamagedStacks, Ground


@pytest.fixture(scope="module")
def ground(sample: Session) -> Ground:
    """The sample's stacks, whole."""
    return Ground(sample)


def deepest(ground: Ground) -> tuple[Task, StackTrace]:
    """A sleeping user task with many frames."""
    sleeping = [(t, w) for t, w, _ in ground.traces if w.end == End.USER and not w.running]
    return max(sleeping, key=lambda it: len(it[1].frames))


def changed(ground: Ground, task: Task, words: dict[int, int]) -> StackTrace:
    """The walk where these words of the stack are others."""
    data = {at + i: value >> 8 * i & 0xFF for at, value in words.items() for i in range(8)}
    return ground.damaged(DamagedStacks(ground.session.memory, data, set())).trace(task)


def slot(trace: StackTrace, index: int) -> int:
    """Where the ip of a frame was read from."""
    found = trace.frames[index].came_from
    assert found is not None
    return found


def doubted_with(ground: Ground, trace: StackTrace, index: int) -> int:
    """The innermost frame that is in doubt where frame `index` is: up to there only calls by pointers lead."""
    calls = ground.session.kernel.terrain.evidence.calls
    for at in range(index, 0, -1):
        below = trace.frames[at - 1].location
        if below is None or calls.leads_to(trace.frames[at].ip, below):
            return at
    return 0


@pytest.mark.parametrize("index", [1, 2, 3, 5])
def test_the_frames_above_a_wrong_word_are_guessed(ground: Ground, index: int) -> None:
    """One return address is gone: the walk stops there with its reason, and goes on above it, marked."""
    task, whole = deepest(ground)
    trace = changed(ground, task, {slot(whole, index): 0xDEAD})
    assert (trace.end, "0xdead" in (words_or_none(trace.end_reason) or "")) == (End.STOPPED, True)
    doubted = doubted_with(ground, whole, index - 1)
    assert [f.mark for f in trace.frames[:index]] == [Mark.AS_BUILT] * doubted + [Mark.STEP_IN_DOUBT] * (
        index - doubted
    )
    assert {f.mark for f in trace.frames[index:] if f.kind != FrameKind.USER} == {Mark.GUESS}
    above = {(f.ip, f.came_from) for f in whole.frames[index + 1 :]}
    assert above <= {(f.ip, f.came_from) for f in trace.frames[index:]}
    assert [f.index for f in trace.frames] == list(range(len(trace.frames)))
    assert trace.frames[-1].kind == FrameKind.USER
    assert not trace.frames[-1].reliable


def test_a_question_looks_over_so_many_words_for_guesses(ground: Ground) -> None:
    """A snapshot can be full of false tasks whose walks break off: what is not looked over is said, and the frames stay."""
    task, whole = deepest(ground)
    words = {slot(whole, 2): 0xDEAD}
    data = {at + i: value >> 8 * i & 0xFF for at, value in words.items() for i in range(8)}
    unwinder = ground.damaged(DamagedStacks(ground.session.memory, data, set()))

    plenty, spent = Budget(MAX_SCANNED), Budget(1)
    guessed, sure = unwinder.trace(task, plenty), unwinder.trace(task, spent)
    assert (plenty.lines(), len(guessed.frames) > 2) == ([], True)
    assert sure.frames == guessed.frames[:2]
    assert sure.end_reason == guessed.end_reason
    (line,) = spent.lines()
    assert "guesses above broken walks, in words looked over: more than 1" in line

    few = Budget(MAX_SCANNED - plenty.left + 1)
    traces = unwinder.traces([task, task], few)
    assert [trace.frames for trace in traces] == [guessed.frames, sure.frames]
    assert len(few.lines()) == 1


def test_no_scan_follows_a_walk_that_ended(ground: Ground) -> None:
    """Guesses come beyond a stop, and only then."""
    for _, whole, _ in ground.traces:
        assert whole.end != End.STOPPED
        assert {frame.source for frame in whole.frames} & {Source.SCAN} == set()


def test_a_saved_ip_that_is_no_text_leaves_guesses(ground: Ground) -> None:
    """The task's first frame cannot be had; what lies above may still help."""
    task, whole = deepest(ground)
    trace = changed(ground, task, {slot(whole, 0): 0x1234})
    assert trace.end == End.STOPPED
    assert {f.mark for f in trace.frames if f.kind != FrameKind.USER} == {Mark.GUESS}
    assert {f.ip for f in whole.frames[1:]} <= {f.ip for f in trace.frames}


def test_a_missing_page_leaves_the_frames_before_and_guesses_behind_it(ground: Ground) -> None:
    """Nothing is read twice, and nothing raises."""
    task, whole = deepest(ground)
    page = slot(whole, len(whole.frames) - 1) >> 12
    trace = ground.damaged(DamagedStacks(ground.session.memory, {}, {page})).trace(task)
    assert (trace.end, "not in the snapshot" in (words_or_none(trace.end_reason) or "")) == (End.STOPPED, True)


def test_a_stack_full_of_return_addresses_is_bounded(ground: Ground) -> None:
    """An evil stack costs a bounded number of walks and lines."""
    task, whole = deepest(ground)
    first, last = slot(whole, 0), slot(whole, 1)
    words = dict.fromkeys(range(last, (first | 4095) + 1, 8), whole.frames[3].ip)
    trace = changed(ground, task, words)
    assert trace.end == End.STOPPED
    assert len(trace.frames) <= MAX_LINES + MAX_FRAMES + MAX_ATTEMPTS
