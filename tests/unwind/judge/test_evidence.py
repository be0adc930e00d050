"""Frames that contradict each other: walks over the sample with changed words on its stacks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from orcdbg.kernel.stacks import Stack, StackKind
from orcdbg.kernel.tasks import Task
from orcdbg.orc.rows import OrcRegister, RowType
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, Frame, FrameKind, Mark, RegisterValue, StackTrace
from orcdbg.unwind.judge.evidence import Evidence
from orcdbg.unwind.reasons import (
    CallLeadsElsewhere,
    FramePointerBehindReturn,
    NotAtUserRegisters,
    NothingConfirms,
    RegisterLeadsElsewhere,
    StackPointerAtOtherDepth,
)
from orcdbg.unwind.starts import stacks_of
from tests.damage import DamagedStacks, Ground, run

COPIES = 300


@pytest.fixture(scope="module")
def ground(sample: Session) -> Ground:
    """The sample's stacks, whole."""
    return Ground(sample)


def test_damage_makes_no_wrong_frame_a_sure_one(ground: Ground) -> None:
    """Some hundred copies with a new seed in every run; `python -m tests.damage` makes 10,000."""
    seed = random.SystemRandom().randrange(1 << 32)
    report = run(ground, COPIES, seed)
    assert report.failures == []
    assert report.frames["true"] > COPIES
    assert report.frames["marked"] > 0


def deep(ground: Ground) -> tuple[Task, StackTrace]:
    """A sleeping user task with many frames."""
    return max(
        ((t, w) for t, w, _ in ground.traces if w.end == End.USER and not w.running), key=lambda it: len(it[1].frames)
    )


def changed(ground: Ground, task: Task, words: dict[int, int]) -> StackTrace:
    """The walk where these words of the stack are others."""
    data = {at + i: value >> 8 * i & 0xFF for at, value in words.items() for i in range(8)}
    return ground.damaged(DamagedStacks(ground.session.memory, data, set())).trace(task)


def test_a_return_address_behind_a_call_of_another_function_is_marked(ground: Ground) -> None:
    """Peers believe any text address (R3 of the measured faults asks for a call; this asks which)."""
    task, whole = deep(ground)
    two, three = whole.frames[2], whole.frames[3]
    assert two.came_from is not None
    trace = changed(ground, task, {two.came_from: three.ip})
    assert [frame.mark for frame in trace.frames[:3]] == [Mark.AS_BUILT, Mark.STEP_IN_DOUBT, Mark.GUESS]
    assert whole.frames[1].location is not None
    assert trace.frames[1].doubt == CallLeadsElsewhere(three.ip, whole.frames[1].location.symbol)
    assert {frame.mark for frame in trace.frames[2:]} == {Mark.GUESS}


def test_a_walk_that_breaks_off_doubts_its_last_frame(ground: Ground) -> None:
    """It, or what it saved, is not right; a page that is missing speaks against nobody."""
    task, whole = deep(ground)
    slot = whole.frames[3].came_from
    assert slot is not None
    trace = changed(ground, task, {slot: 0x1234})
    assert (trace.end, [frame.mark for frame in trace.frames[:3]]) == (
        End.STOPPED,
        [Mark.AS_BUILT, Mark.AS_BUILT, Mark.STEP_IN_DOUBT],
    )
    missing = DamagedStacks(ground.session.memory, {}, {whole.frames[-1].came_from or 0 >> 12})
    assert Mark.STEP_IN_DOUBT not in {frame.mark for frame in ground.damaged(missing).trace(task).frames}


def interrupted(ground: Ground) -> tuple[Evidence, list[Frame], list[Stack], int]:
    """The frames of the sample's panic, and the number of the one that the NMI interrupted."""
    session = ground.session
    (task,) = [t for t in session.tasks if t.address in session.unwinder.running]
    frames = list(session.unwinder.trace(task).frames)
    number = next(f.index for f in frames[1:] if f.kind == FrameKind.INTERRUPT)
    evidence = session.kernel.terrain.evidence
    return evidence, frames, stacks_of(session.linux, task.address, 0), number


def test_an_interrupted_ip_inside_an_instruction_is_marked(ground: Ground) -> None:
    """No CPU stops there."""
    evidence, frames, stacks, number = interrupted(ground)
    assert evidence.judge(frames, stacks, False) == frames
    frames[number] = replace(frames[number], ip=frames[number].ip + 2)
    marks = [frame.mark for frame in evidence.judge(frames, stacks, False)]
    assert marks[number - 1 : number + 2] == [Mark.STEP_IN_DOUBT, Mark.GUESS, Mark.GUESS]


def test_registers_saved_far_from_their_stack_pointer_are_marked(ground: Ground) -> None:
    """On one stack the CPU saves them right below it, aligned to 16 bytes."""
    evidence, frames, _, number = interrupted(ground)
    at = frames[number - 1].cfa
    assert at is not None
    for gap, is_sure in ((0, True), (8, True), (16, False), (0x100, False), (-8, False)):
        sp = RegisterValue(at + 168 + gap, "test")
        moved = replace(frames[number], registers={**frames[number].registers, "rsp": sp})
        together = [Stack(StackKind.TASK, at - 0x1000, at + 0x1000)]
        judged = evidence.judge([*frames[:number], moved], together, False)
        assert judged[number].mark.is_sure == is_sure, gap


def test_user_registers_below_the_top_of_the_stack_are_marked(ground: Ground) -> None:
    """The kernel keeps them in one place."""
    task, whole = deep(ground)
    evidence, _, _, _ = interrupted(ground)
    (own,) = stacks_of(ground.session.linux, task.address, None)
    frames = list(whole.frames)
    assert evidence.judge(frames, [own], False) == frames
    last = frames[-2]
    assert last.cfa is not None
    assert last.return_slot is not None
    assert last.entry is not None
    # A derived rule finds the whole registers where the row as built has the CPU's five words.
    frames[-2] = replace(last, entry=last.entry._replace(row=last.entry.row._replace(type=RowType.REGS_PARTIAL)))
    assert evidence.judge(frames, [own], False) == frames
    frames[-2] = replace(last, cfa=last.cfa - 0x40, return_slot=last.return_slot - 0x40)
    judged = evidence.judge(frames, [own], False)
    assert (judged[-2].mark, judged[-1].reliable) == (Mark.STEP_IN_DOUBT, False)


def test_a_changed_saved_rbp_loses_no_callers_without_a_mark(ground: Ground) -> None:
    """`__schedule` is entered by direct calls alone: no indirect call above it, and no call of anything else, is believed."""
    walks = 0
    for task, whole, _ in ground.traces:
        frame = next((f for f in whole.frames if f.location and f.location.symbol == "__schedule"), None)
        if (
            not task.pid
            or whole.running
            or frame is None
            or frame.cfa is None
            or frame.bp is None
            or not (frame.rule or "").startswith("bp")
        ):
            continue
        # "inactive_task_frame 0x... +40", "saved at 0x... by frame #0"
        numbers = [int(word, 0) for word in frame.registers["rbp"].source.split() if word[:2] == "0x" or word[0] == "+"]
        saved = sum(numbers)
        for caller in whole.frames[frame.index + 2 :]:
            if caller.kind is not FrameKind.CALL or caller.came_from is None:
                continue
            trace = changed(ground, task, {saved: caller.came_from + 8 - (frame.cfa - frame.bp)})
            assert not all(found.is_trusted for found in trace.frames), (task, caller.location)
            walks += 1
    assert walks > 20


def test_a_new_tasks_first_frame_is_at_the_users_registers_or_marked(ground: Ground) -> None:
    """Its address written over that of a caller of another frame would leave out those between in silence."""
    walks = 0
    evidence, _, _, _ = interrupted(ground)
    for task, whole, _ in ground.traces:
        first = whole.frames[-1] if whole.end is End.KTHREAD else None
        if whole.running or first is None or first.location is None or first.location.symbol != "ret_from_fork":
            continue
        last = whole.frames[-2]
        assert last.came_from is not None
        trace = changed(ground, task, {last.came_from: first.ip})
        assert isinstance(trace.frames[-1].doubt, RegisterLeadsElsewhere | NotAtUserRegisters)
        assert [frame.mark for frame in trace.frames[-2:]] == [Mark.STEP_IN_DOUBT, Mark.GUESS]

        # Nor without the register that the call went through.
        nameless = [replace(whole.frames[-3], location=None), replace(trace.frames[-1], reliable=True, doubt=None)]
        judged = evidence.judge(nameless, stacks_of(ground.session.linux, task.address, None), False)
        assert judged[-1].doubt is not None
        assert NotAtUserRegisters(last.sp) in {frame.doubt for frame in judged}
        assert not any(frame.mark.is_sure for frame in judged)
        walks += 1
    assert walks > 5


def test_rbp_that_leads_past_the_return_address_is_marked(ground: Ground) -> None:
    """Where the caller's rbp should be is the address behind the call of this function then; its caller was left out."""
    task, whole = next((task, whole) for task, whole, _ in ground.traces if task.comm == "s_epoll")
    frame = next(f for f in whole.frames if f.location and f.location.symbol == "do_epoll_wait")
    rbp = frame.registers["rbp"]
    saved = next(int(word, 0) for word in rbp.source.split() if word.startswith("0x"))
    trace = changed(ground, task, {saved: rbp.value + 8})
    assert trace.frames[frame.index].doubt == FramePointerBehindReturn(whole.frames[frame.index + 1].ip)
    assert [f.mark for f in trace.frames[frame.index : frame.index + 2]] == [Mark.STEP_IN_DOUBT, Mark.GUESS]


def test_a_kernel_thread_that_lost_the_function_that_began_it_is_marked(ground: Ground) -> None:
    """Where new tasks begin, the function to call is in a register that all below keep; it is `kthread`, and no other."""
    evidence, _, _, _ = interrupted(ground)
    seen = 0
    for task, whole, _ in ground.traces:
        names = [frame.location and frame.location.symbol for frame in whole.frames]
        if whole.end is not End.KTHREAD or "kthread" not in names or whole.running:
            continue
        stacks, at = stacks_of(ground.session.linux, task.address, None), names.index("kthread")
        assert evidence.judge(list(whole.frames), stacks, False) == list(whole.frames)
        above = [replace(frame, index=frame.index - 1) for frame in whole.frames[at + 1 :]]
        judged = evidence.judge([*whole.frames[:at], *above], stacks, False)
        assert judged[at].mark is Mark.GUESS
        assert isinstance(judged[at].doubt, RegisterLeadsElsewhere | CallLeadsElsewhere)
        assert not judged[at - 1].mark.is_sure
        seen += isinstance(judged[at].doubt, RegisterLeadsElsewhere)
    assert seen > 5


def test_a_doubt_goes_down_to_a_call_that_is_known_to_lead_there(ground: Ground) -> None:
    """A stack pointer that is a little off finds stale words; a pointer may lead from the first of them anywhere."""
    evidence, _, _, _ = interrupted(ground)
    for task, whole, _ in ground.traces:
        frames, stacks = list(whole.frames), stacks_of(ground.session.linux, task.address, None)
        by_pointer = [
            at
            for at in range(1, len(frames) - 1)
            if (below := frames[at - 1].location) is not None and evidence.calls.leads_to(frames[at].ip, below) is None
        ]
        if (
            whole.running
            or whole.end is not End.USER
            or not by_pointer
            or frames[by_pointer[0] + 1].kind is not FrameKind.CALL
        ):
            continue
        at = by_pointer[0]
        frames[at + 1] = replace(frames[at + 1], ip=frames[0].ip)
        judged = evidence.judge(frames, stacks, False)
        assert isinstance(judged[at].doubt, CallLeadsElsewhere)
        assert judged[at - 1].doubt == NothingConfirms(at + 1)
        assert judged[at - 1].mark is Mark.STEP_IN_DOUBT
        return
    raise AssertionError("no call by a pointer in the sample")


def test_a_contradiction_far_up_says_nothing_of_where_a_cpu_is(ground: Ground) -> None:
    """The panic's first frame has its stack pointer from the CPU: no call needs to confirm the step from there."""
    evidence, frames, stacks, number = interrupted(ground)
    frames[0] = replace(frames[0], location=None)  # what is called by a pointer, as delay_tsc is by panic
    top = next(at for at in range(len(frames) - 1, 0, -1) if frames[at].kind is FrameKind.CALL)
    assert top > number
    frames[top] = replace(frames[top], ip=frames[top].ip + 1)
    judged = evidence.judge(frames, stacks, False)
    assert judged[top].mark is Mark.GUESS
    assert [frame.index for frame in judged[:number] if not frame.mark.is_sure] == []


def test_a_stack_pointer_that_its_function_never_has_is_marked(ground: Ground) -> None:
    """Rows that count from rbp say nothing of it: in such a function any would do, but for its instructions."""
    evidence, _, _, _ = interrupted(ground)
    seen = 0
    for task, whole, _ in ground.traces:
        stacks = stacks_of(ground.session.linux, task.address, None)
        for frame in whole.frames[:-1]:
            row = None if frame.entry is None else frame.entry.row
            if whole.running or row is None or row.sp_reg is not OrcRegister.BP or frame.cfa is None:
                continue
            frames = list(whole.frames)
            assert evidence.judge(frames, stacks, False) == frames
            depth = frame.cfa - frame.sp
            lower = RegisterValue(frame.sp - 0x50, "test")
            # As after an interrupt: that the function is called there is confirmed by nothing.
            frames[frame.index] = replace(frame, registers={**frame.registers, "rsp": lower})
            if frame.index:
                frames[frame.index - 1] = replace(frames[frame.index - 1], location=None)
            judged = evidence.judge(frames, stacks, False)
            if judged != frames:
                doubt = judged[frame.index].doubt
                assert isinstance(doubt, StackPointerAtOtherDepth)
                assert (doubt.depth, doubt.least <= depth <= doubt.most) == (depth + 0x50, True)
                assert {one.mark for one in judged[frame.index + 1 :]} == {Mark.GUESS}
                seen += 1
    assert seen > 5


def test_a_saved_rbp_that_is_another_is_marked(ground: Ground) -> None:
    """A little off, or that of any other frame of the stack, so that callers would be left out."""
    seen = 0
    for task, whole, _ in ground.traces:
        others = {frame.cfa - 16 for frame in whole.frames if frame.cfa is not None}
        for frame in whole.frames[1:-1]:
            rbp, row = frame.registers.get("rbp"), None if frame.entry is None else frame.entry.row
            if whole.running or rbp is None or row is None or row.sp_reg is not OrcRegister.BP:
                continue
            saved = [int(word, 0) for word in rbp.source.split() if word.startswith("0x")]
            if not rbp.source.startswith("saved at") or frame.location is None:
                continue
            wrong = {rbp.value + distance for distance in (-0x40, -8, 8, 0x10, 0x40)} | others
            for value in wrong - {rbp.value}:
                trace = changed(ground, task, {saved[0]: value})
                assert not all(one.mark.is_sure for one in trace.frames), (frame.location, hex(value))
                seen += 1
    assert seen > 100


def test_the_thread_starter_over_the_function_that_it_called_is_marked(ground: Ground) -> None:
    """`kthread` calls by a register that the functions below it keep: it called none of those that stand there."""
    seen = 0
    for task, whole, _ in ground.traces:
        names = [frame.location and frame.location.symbol for frame in whole.frames]
        if whole.end is not End.KTHREAD or "kthread" not in names or whole.running:
            continue
        starter = whole.frames[names.index("kthread")]
        for frame in whole.frames[1 : starter.index]:
            assert frame.came_from is not None
            trace = changed(ground, task, {frame.came_from: starter.ip})
            assert not all(one.mark.is_sure for one in trace.frames), (task, frame.location)
            seen += 1
    assert seen > 20
