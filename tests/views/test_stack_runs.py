"""A doubt is told once for the frames that have it, and a recursion by its first frames: no mark is lost by either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orcdbg.base.reasons import Reason
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.stacks import Stacks
from orcdbg.orc.effective import Source
from orcdbg.unwind.frame import Frame, FrameKind, Mark, StackTrace
from orcdbg.unwind.reasons import (
    MaybeOfEarlierCall,
    NoCallBefore,
    NothingConfirms,
    ReachedThroughDoubt,
    ReachedThroughGuess,
    TextOnStack,
)
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of, text_pieces
from orcdbg.views.page import plain
from orcdbg.views.stack_runs import Recursion, recursions, repeated_doubts


@pytest.fixture
def stacks(registry: Registry, debugger: Debugger) -> Stacks:
    """The sample's panicked stack."""
    found = registry.run(debugger, "bt")
    assert isinstance(found, Stacks)
    return found


@pytest.fixture
def calls(stacks: Stacks) -> list[Frame]:
    """Its frames that were reached by a return address, and are sure as built."""
    frames = stacks.stacks[0].frames
    return [frame for frame in frames if frame.kind is FrameKind.CALL and frame.mark is Mark.AS_BUILT]


def shown(stacks: Stacks, frames: Sequence[Frame], width: int | None = None) -> list[str]:
    """The text of a stack of these frames."""
    trace: StackTrace = replace(stacks.stacks[0], frames=frames)
    return plain(lines_of(replace(stacks, stacks=[trace]), width)).splitlines()


def stacked(frames: Sequence[Frame]) -> list[Frame]:
    """Frames one above the other, each at its place: as large as they were, at addresses and with numbers of their own."""
    placed: list[Frame] = []
    sp = frames[0].sp
    for index, frame in enumerate(frames):
        size = (frame.cfa or 0) - frame.sp
        registers = dict(frame.registers) | {"rsp": frame.registers["rsp"]._replace(value=sp)}
        slot, cfa = sp - 8, sp + size
        placed.append(replace(frame, index=index, registers=registers, came_from=slot, cfa=cfa, return_slot=cfa - 8))
        sp = cfa
    return placed


def doubted(frames: Sequence[Frame], *doubts: Reason) -> list[Frame]:
    """The first frames with these doubts, each as a guess."""
    guesses = [replace(frame, reliable=False, doubt=doubt) for frame, doubt in zip(frames, doubts, strict=False)]
    return [*guesses, *frames[len(doubts) :]]


def test_a_doubt_is_told_at_the_first_frame_that_has_it_and_marked_at_all(stacks: Stacks, calls: list[Frame]) -> None:
    """Frames behind it have `?` and no sentence; the last line counts them all."""
    frames = doubted(stacked(calls[:5]), *[ReachedThroughGuess(7)] * 4)
    text = shown(stacks, frames)
    assert sum("reached through frame #7, which is a guess" in line for line in text) == 1
    assert [line[0] for line in text if line[1:2] == "#"] == ["?", "?", "?", "?", " "]
    assert "4 guessed" in text[-1]


def test_a_doubt_that_is_handed_on_is_one_doubt(calls: list[Frame]) -> None:
    """Each frame of a walk names the one before it; that it is in doubt was told there."""
    frames = stacked(calls[:6])
    handed = doubted(frames, NoCallBefore(1), *(ReachedThroughDoubt(index) for index in range(4)))
    assert repeated_doubts(handed) == [False, False, True, True, True, False]


def test_another_doubt_in_between_has_the_first_told_again(calls: list[Frame]) -> None:
    """And so has a frame in between that is sure."""
    frames = stacked(calls[:5])
    first, other = NothingConfirms(9), MaybeOfEarlierCall()
    assert repeated_doubts(doubted(frames, first, first, other, first, first)) == [False, True, False, False, True]
    sure = [*doubted(frames[:2], first, first), frames[2], *doubted(frames[3:], first, first)]
    assert repeated_doubts(sure) == [False, True, False, False, True]


def test_what_was_found_at_each_word_of_a_stack_is_told_at_each(calls: list[Frame]) -> None:
    """`bt -t` says of every address whether a call ends there."""
    frames = doubted(stacked(calls[:3]), *[TextOnStack(True)] * 3)
    assert repeated_doubts(frames) == [False, False, False]


def test_a_scans_doubt_is_told_once_beside_its_frames(stacks: Stacks, calls: list[Frame]) -> None:
    """In the column where the CFA would be from."""
    frames = [
        replace(frame, source=Source.SCAN) for frame in doubted(stacked([calls[0]] * 3), *[MaybeOfEarlierCall()] * 3)
    ]
    ends = [line.rpartition("  ")[2] for line in shown(stacks, frames) if line.startswith("?#")]
    assert ends[0].startswith("scan: ")
    assert ends[1:] == ["scan", "scan"]


def test_json_has_each_frames_doubt(stacks: Stacks, calls: list[Frame]) -> None:
    """Programs need not look at other frames."""
    frames = doubted(stacked(calls[:3]), *[ReachedThroughGuess(7)] * 3)
    answer = encode(replace(stacks, stacks=[replace(stacks.stacks[0], frames=frames)]))
    assert {frame["doubt"] for frame in answer["stacks"][0]["frames"]} == {"reached through frame #7, which is a guess"}


@pytest.mark.parametrize("width", [None, 80])
def test_a_recursion_is_its_first_frame_and_how_often(stacks: Stacks, calls: list[Frame], width: int | None) -> None:
    """Forty-four calls of a function by itself are two lines, and the last line counts forty-six frames."""
    repeated = calls[1]
    frames = stacked([calls[0], *[repeated] * 44, calls[2]])
    size = (repeated.cfa or 0) - repeated.sp
    text = shown(stacks, frames, width)
    numbers = [line[2:4].strip() for line in text if line[1:2] == "#"]
    assert numbers == ["0", "1", "45"]
    told = " ".join(line.strip() for line in text)
    assert f"x 44: #1 to #44, {size} bytes of stack each; --every-frame shows them" in told
    assert any(line.startswith("46 frames: 46 ORC as built") for line in text)


def test_functions_that_call_each_other_in_turn_are_a_recursion(calls: list[Frame]) -> None:
    """Of as many frames as there are until the first comes again."""
    frames = stacked([*calls[:3] * 5, calls[4]])
    size = sum((frame.cfa or 0) - frame.sp for frame in calls[:3])
    assert recursions(frames, lambda place: "") == [Recursion(0, 3, 5, size)]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: replace(frame, reliable=False, doubt=MaybeOfEarlierCall()),
        lambda frame: replace(frame, ip=frame.ip + 1),
        lambda frame: replace(frame, cfa=(frame.cfa or 0) + 8),
        lambda frame: replace(frame, cfa=None),
        lambda frame: replace(frame, came_from=None),
        lambda frame: replace(frame, kind=FrameKind.INTERRUPT),
    ],
    ids=["mark", "ip", "size", "no CFA", "no slot", "interrupt"],
)
def test_a_frame_that_differs_has_its_own_line(calls: list[Frame], change: object) -> None:
    """Frames before it and behind it are two runs."""
    assert callable(change)
    frames = stacked([calls[1]] * 11)
    frames[5] = change(frames[5])
    size = (calls[1].cfa or 0) - calls[1].sp
    assert recursions(frames, lambda place: "") == [Recursion(0, 1, 5, size), Recursion(6, 1, 5, size)]


def test_frames_of_different_marks_are_not_one_cycle(calls: list[Frame]) -> None:
    """Sure and doubted in turn: one line would have to have two marks."""
    guess = replace(calls[1], reliable=False, doubt=MaybeOfEarlierCall())
    assert recursions(stacked([calls[0], guess] * 6), lambda place: "") == []


def test_a_doubted_recursion_has_its_mark_on_both_lines(stacks: Stacks, calls: list[Frame]) -> None:
    """The first of them says the doubt, and the next stands for the others."""
    frames = doubted(stacked([calls[1]] * 20), *[ReachedThroughGuess(3)] * 20)
    text = shown(stacks, frames)
    marked = [line for line in text if line.startswith("?")]
    assert [line.split()[0] for line in marked] == ["?#0", "?#1", "?"]
    assert "x 19: #1 to #19" in marked[2]
    assert sum("reached through frame #3" in line for line in text) == 1


def test_what_lines_say_besides_decides_too(calls: list[Frame]) -> None:
    """Frames with different sentences are not alike."""
    frames = stacked([calls[1]] * 8)
    assert recursions(frames, str) == []
    assert recursions(stacked([calls[1]] * 3), lambda place: "") == []  # two lines would stand for three


def test_every_frame_is_shown_where_it_is_asked_for_or_has_words_of_its_own(
    stacks: Stacks, calls: list[Frame], registry: Registry, debugger: Debugger
) -> None:
    """By `--every-frame`, which `foreach` has too; with `-f` each frame's words differ."""
    trace = replace(stacks.stacks[0], frames=stacked([calls[1]] * 9))
    words = {(trace.task, 0): None}
    for each in (replace(stacks, with_every_frame=True), replace(stacks, words=words)):  # type: ignore[arg-type]
        text = "".join(text_pieces(replace(each, stacks=[trace]), None))
        assert sum(line[1:2] == "#" for line in text.splitlines()) == 9
        assert " x 9" not in text
    for line in ("bt --every-frame", "foreach bt --every-frame"):
        found = registry.run(debugger, line)
        assert isinstance(found, Stacks)
        assert found.with_every_frame


def test_a_narrow_terminal_is_told_what_it_does_not_see(registry: Registry, debugger: Debugger) -> None:
    """Return slots of stacks, bytes of instructions; a wide one has them."""
    for line, dropped in (("bt", "Return slots"), ("foreach bt --group", "Return slots"), ("dis schedule 3", "Bytes")):
        answer = registry.run(debugger, line)
        narrow = plain(lines_of(answer, 80))
        assert narrow.count(f"{dropped} are shown from 100 columns on") == 1
        assert "100 columns" not in plain(lines_of(answer, 100)) + plain(lines_of(answer, None))
