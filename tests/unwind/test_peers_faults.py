"""Faults that were measured in other tools, each made again and shown not to be ours.

R1 to R12 are what drgn 0.3.0 does wrong on dumps of the four kernels; the rest is crash 9.0.2.

Crosses layouts, walker, commands and views: wherever the other tool went wrong.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orcdbg.base.errors import MemoryFault
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.stacks import Stacks
from orcdbg.kernel.tasks import Task
from orcdbg.orc.layout import choose_layout
from orcdbg.orc.rows import FUNCTION_ENTRY, LAYOUTS, OrcLayout, OrcRegister, OrcRow, RowType
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, Mark, StackTrace
from orcdbg.unwind.reasons import NoCallBefore
from orcdbg.unwind.walker import WalkEnd
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from orcdbg.views.reasons import words_or_none
from tests.build.stacks import END, FUNCTION, TEXT, TOP, World, call
from tests.damage import DamagedStacks, Ground


@pytest.fixture(scope="module")
def ground(sample: Session) -> Ground:
    """The sample's stacks, whole."""
    return Ground(sample)


def user_task(ground: Ground) -> tuple[Task, StackTrace]:
    """A task that sleeps in a system call."""
    return next((t, w) for t, w, _ in ground.traces if w.end == End.USER and not w.running)


def changed(ground: Ground, task: Task, words: dict[int, int]) -> StackTrace:
    """The walk where these words of the stack are others."""
    data = {at + i: value >> 8 * i & 0xFF for at, value in words.items() for i in range(8)}
    return ground.damaged(DamagedStacks(ground.session.memory, data, set())).trace(task)


def test_r1_nothing_follows_the_users_registers(ground: Ground) -> None:
    """R1: it walked on below the system call with the user's rbp, up to 1,027 frames of one task."""
    for _, whole, _ in ground.traces:
        kinds = [frame.kind for frame in whole.frames]
        assert FrameKind.USER not in kinds[:-1]
        assert (kinds[-1] == FrameKind.USER) == (whole.end == End.USER)


def test_r1_a_users_rbp_leads_nowhere(ground: Ground) -> None:
    """R1: a user rbp that is a small address, or odd, became frames read from physical memory."""
    task, whole = user_task(ground)
    at = whole.frames[-1].came_from
    assert at is not None
    for rbp in (0x8C3DC28, 1, 0xC3):
        trace = changed(ground, task, {at - 128 + 32: rbp})
        assert [(f.ip, f.mark) for f in trace.frames] == [(f.ip, f.mark) for f in whole.frames]


@pytest.mark.parametrize("offset", [-0x4000, -8, 0, 0x4000])
def test_r2_the_stack_pointer_stays_on_the_stack_and_grows(offset: int) -> None:
    """R2: no check that the CFA is on a known stack, or above the last."""
    world = World({0: call(16, OrcRegister.BP), 1: call(8), 2: END})
    sp = TOP - 0x200
    world.words |= {sp - 16: TEXT + FUNCTION + 5, sp - 8: TEXT + FUNCTION + 5}
    walk = world.walk(TEXT + 4, sp, rbp=sp - 16 + offset)
    assert (walk.end, len(walk.frames)) == (WalkEnd.STOPPED, 1)


def test_r3_a_return_address_is_text_and_follows_a_call(ground: Ground) -> None:
    """R3: any word was a frame, and none said that no call stands before it."""
    task, whole = user_task(ground)
    slot, ip = whole.frames[2].came_from, whole.frames[2].ip
    assert slot is not None
    assert changed(ground, task, {slot: 0xFFFF888000001000}).end == End.STOPPED
    doubted = changed(ground, task, {slot: ip + 1}).frames[2]
    assert (doubted.mark, doubted.doubt) == (Mark.GUESS, NoCallBefore(ip + 1))


def test_r4_no_frame_is_guessed_by_rbp() -> None:
    """R4: where no row was found, rbp was taken for a frame pointer, or when odd for encoded registers."""
    for rbp in (TOP - 0x100, TOP - 0x100 + 1):
        world = World({1: call(8), 2: END})
        world.words |= {TOP - 0x100 + 8: TEXT + FUNCTION + 5}
        walk = world.walk(TEXT + 4, TOP - 0x200, rbp=rbp)
        assert (walk.end, len(walk.frames)) == (WalkEnd.STOPPED, 1)
        assert "no ORC row" in (words_or_none(walk.end_reason) or "")


def test_r5_every_walk_says_how_it_ended(ground: Ground) -> None:
    """R5: a failed walk and a finished one looked the same."""
    for task, whole, _ in ground.traces:
        assert whole.end in (End.USER, End.KTHREAD, End.IDLE, End.BOOT)
        slot = next((f.came_from for f in whole.frames if f.kind == FrameKind.CALL and f.came_from), None)
        if slot is not None:
            broken = changed(ground, task, {slot: 0})
            assert broken.end == End.STOPPED
            assert broken.end_reason


def test_r5_a_null_ip_is_one_frame_and_not_a_thousand() -> None:
    """R5, limit 5: ip 0 popped a word of zeros for each of 1,014 frames."""
    world = World({1: call(8)})
    walk = world.walk(0, TOP - 0x400)
    assert (walk.end, len(walk.frames)) == (WalkEnd.STOPPED, 1)


def test_r6_a_new_tasks_first_ip_is_exact() -> None:
    """R6, and crash's false `__schedule`: ret_from_fork+0 was looked up at ip - 1, and had no name and no row."""
    world = World({0: OrcRow(OrcRegister.SP, 0, OrcRegister.UNDEFINED, 0, RowType.UNDEFINED, False), 1: END})
    frame = world.walk(TEXT + FUNCTION, TOP - 168).frames[0]
    assert frame.location is not None
    assert (frame.location.symbol, frame.location.start) == ("ret_from_fork", frame.ip)


def test_r10_an_identity_map_is_not_believed(sample: Session) -> None:
    """R10: QEMU's p_vaddr made every physical address a valid virtual one."""
    for address in (0, 0x8C3DC28, 0x100000):
        with pytest.raises(MemoryFault):
            sample.memory.read(address, 8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_r11_an_unknown_hash_is_answered_by_a_vote(layout: OrcLayout) -> None:
    """R11, and crash on 7.2: the renumbering of 7.1 broke every trace, or was read with the old numbers."""
    choice = choose_layout(b"?" * 20, None, [layout.encode(FUNCTION_ENTRY)] * 100)
    assert choice.layout.decode(layout.encode(FUNCTION_ENTRY)) == FUNCTION_ENTRY
    assert choice.warning


def test_crash_a_cpu_in_user_mode_has_no_kernel_frames(sample: Session) -> None:
    """crash printed ten leftover frames of an old page fault as the live stack of a CPU in user mode."""
    (note,) = sample.snapshot.cpus
    registers = dict(note.registers) | {"cs": 0x33, "ss": 0x2B, "rip": 0x401000, "rsp": 0x7FFE00000000}
    snapshot = replace(sample.snapshot, cpus=(replace(note, registers=registers),))
    session = Session(sample.image, snapshot)
    (task,) = session.unwinder.running
    trace = session.unwinder.trace(session.task(task))
    assert ([f.kind for f in trace.frames], trace.end) == ([FrameKind.USER], End.USER)


def test_crash_frame_0_is_the_cpus_own_ip(sample: Session) -> None:
    """crash began at the first text address above rsp, a stale word; and on a panic at `panic`, not where the CPU was."""
    (note,) = sample.snapshot.cpus
    (task,) = sample.unwinder.running
    frame = sample.unwinder.trace(sample.task(task)).frames[0]
    assert (frame.ip, frame.sp, frame.exact) == (note.registers["rip"], note.registers["rsp"], True)


def test_crash_a_noreturn_caller_is_kept_and_named(registry: Registry, debugger: Debugger) -> None:
    """crash lost nmi_panic.cold, whose return address is the next symbol, or gave it that symbol's name."""
    found = registry.run(debugger, "bt")
    assert isinstance(found, Stacks)
    (trace,) = found.stacks
    last = next(f for f in trace.frames if f.location and f.ip - f.location.start == f.location.size)
    assert last.location is not None
    assert last.location.symbol.endswith(".cold")
    assert "(row of the call, ip-1)" in plain(lines_of(found, None))


def test_crash_a_guess_says_so(ground: Ground) -> None:
    """crash prints the text addresses that it finds on the way as frames like any other."""
    task, whole = user_task(ground)
    slot = whole.frames[1].came_from
    assert slot is not None
    trace = changed(ground, task, {slot: 0})
    guessed = [f for f in trace.frames[1:] if f.kind != FrameKind.USER]
    assert guessed
    assert {f.mark for f in guessed} == {Mark.GUESS}
