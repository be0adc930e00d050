"""What the registers at the top of a stack say: the sample's tasks, with other registers there."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orcdbg.base.reading import read_u64
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import StackKind, task_registers, task_stack
from orcdbg.kernel.tasks import PF_KTHREAD, Task
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, Frame, FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.reasons import SysenterKeepsNothing
from orcdbg.unwind.top_of_stack import fill_in_sysenter
from orcdbg.unwind.walker import State, Walk, WalkEnd
from orcdbg.x86.registers import PT_REGS
from tests.build.sample_notes import without_notes

KTHREAD, PROGRAM = 2, 31
# The sample's kernel runs no 32-bit programs: its other vDSO stands in for theirs.
IMAGES = ("vdso_image_64",)
USER = {"cs": 0x33, "ss": 0x2B, "rflags": 0x202}
NEVER_RUN = USER | {"rip": 0, "rsp": 0}
PROGRAMS = USER | {"rip": 0x401000, "rsp": 0x7FFD00001000}


def saved_at_top(sample: Session, task: Task, values: Mapping[str, int]) -> dict[str, bytes]:
    """These registers at the top of a task's stack, as a piece of memory."""
    stack = task_stack(sample.linux, task.address)
    assert stack is not None
    words = dict.fromkeys(PT_REGS, 0) | dict(values)
    data = b"".join(words[name].to_bytes(8, "little") for name in PT_REGS)
    return {f"at_{task_registers(sample.linux, stack):x}": data}


def thread(sample: Session, values: Mapping[str, int], flags: int) -> tuple[Session, Task]:
    """The sample with other flags of a kernel thread, and other registers at the top of its stack."""
    task = next(task for task in sample.tasks if task.pid == KTHREAD)
    session = without_notes(sample, **saved_at_top(sample, task, values))
    return session, task._replace(flags=task.flags & ~PF_KTHREAD | flags)


@pytest.mark.parametrize(
    ("values", "end"), [(NEVER_RUN, End.KTHREAD), (PROGRAMS, End.USER), (dict[str, int](), End.KTHREAD)]
)
def test_a_worker_of_a_process_has_no_program(sample: Session, values: Mapping[str, int], end: End) -> None:
    """io_uring's and vhost's are no kernel threads, and will never be in user mode; a program being executed will be."""
    session, task = thread(sample, values, 0)
    trace = session.unwinder.trace(task)
    (known,) = [sample.unwinder.trace(one) for one in sample.tasks if one.pid == KTHREAD]
    kernel = [frame for frame in trace.frames if frame.kind is not FrameKind.USER]
    assert [(f.ip, f.sp, f.mark) for f in kernel] == [(f.ip, f.sp, f.mark) for f in known.frames]
    assert (trace.end, len(trace.frames) - len(kernel)) == (end, end is End.USER)
    assert [t.end for t in session.unwinder.traces([task])] == [end]


def rewound(session: Session, task: Task) -> StackTrace:
    """The stack of a task that died of an oops: one frame, right below the registers of its entry."""
    start = session.linux.address("rewind_stack_and_make_dead")
    text = session.built.read(start, 48)
    ip = start + text.index(b"\xe8") + 5
    stack = task_stack(session.linux, task.address)
    assert stack is not None
    sp = task_registers(session.linux, stack)
    registers = {"rip": RegisterValue(ip, "given"), "rsp": RegisterValue(sp, "given")}
    return session.unwinder.from_state(task, State(ip, False, registers, FrameKind.CALL, None), "given")


@pytest.mark.parametrize(
    ("values", "flags", "end"),
    [
        ({}, PF_KTHREAD, End.KTHREAD),
        (NEVER_RUN, 0, End.KTHREAD),
        (PROGRAMS, 0, End.USER),
        ({"cs": 5}, PF_KTHREAD, End.STOPPED),
        ({"rbx": 1}, PF_KTHREAD, End.STOPPED),
    ],
)
def test_a_task_that_died_of_an_oops_ends_where_it_began(
    sample: Session, values: Mapping[str, int], flags: int, end: End
) -> None:
    """A kernel thread has zeros there, a worker no program, a program its registers; anything else is damage."""
    trace = rewound(*thread(sample, values, flags))
    first = trace.frames[0]
    assert trace.end is end
    if end is not End.STOPPED:
        assert (first.doubt, trace.end_reason) == (None, None)
        assert len(trace.frames) == 1 + (end is End.USER)


def entered(symbol: str, rip: int) -> Walk:
    """A walk that came to user mode through entry code, with this ip saved there."""
    values = {"rip": rip, "rsp": 0, "rbp": 0xFFB0_1234, "cs": 0x23}
    registers = {name: RegisterValue(value, "pt_regs") for name, value in values.items()}
    entry = Frame(0, FrameKind.CALL, StackKind.TASK, 0, False, Location(symbol, 0, 16, None, True), registers)
    user = Frame(1, FrameKind.USER, StackKind.UNKNOWN, rip, True, None, registers, 0xFFFF_C900_0000_0080)
    return Walk([entry, user], WalkEnd.USER)


def with_vdso(sample: Session, vdso: int, is_moved: bool = False) -> tuple[Session, int]:
    """The sample with a 32-bit vDSO in a task's memory, whose landing pad is 0x589 bytes in; and the task."""
    task = next(task for task in sample.tasks if task.pid == PROGRAM)
    linux = sample.linux
    mm = linux.member("task_struct", "mm", task.address)
    image, at = linux.address(IMAGES[0]) + 8 * is_moved, linux.types.offset
    pieces = {
        mm + at("mm_struct", "context.vdso"): vdso,
        mm + at("mm_struct", "context.vdso_image"): image,
        image + at("vdso_image", "sym_int80_landing_pad"): 0x589,
    }
    return without_notes(sample, **{f"at_{a:x}": v.to_bytes(8, "little") for a, v in pieces.items()}), task.address


def test_sysenters_placeholder_is_filled_in_as_the_kernel_will(sample: Session) -> None:
    """The program goes on at the vDSO's landing pad, with the stack pointer that the vDSO put into rbp."""
    session, task = with_vdso(sample, 0xF7FC_4000)
    walk = entered("entry_SYSENTER_compat_after_hwframe", 0)
    fill_in_sysenter(session.linux, walk, task, IMAGES)
    user = walk.frames[-1]
    assert (user.ip, user.registers["rip"].value, user.sp) == (0xF7FC_4589, 0xF7FC_4589, 0xFFB0_1234)
    assert (user.came_from, walk.end) == (None, WalkEnd.USER)


def test_what_the_kernel_has_filled_in_stays(sample: Session) -> None:
    """Nor is an ip of 0 behind any other entry a placeholder: a program may call NULL."""
    session, task = with_vdso(sample, 0xF7FC_4000)
    for symbol, rip in (("entry_SYSENTER_compat_after_hwframe", 0xF7FC_4589), ("asm_exc_page_fault", 0)):
        walk = entered(symbol, rip)
        known = list(walk.frames)
        fill_in_sysenter(session.linux, walk, task, IMAGES)
        assert walk.frames == known


def test_a_placeholder_without_a_vdso_is_no_users_frame(sample: Session) -> None:
    """The walk says why it ends, and no frame is in doubt for it. A vDSO is whole pages, and its image one of the kernel's."""
    for vdso, is_moved in ((0, False), (0xF7FC_4008, False), (0xF7FC_4000, True)):
        session, task = with_vdso(sample, vdso, is_moved)
        walk = entered("entry_SYSENTER_compat_after_hwframe", 0)
        fill_in_sysenter(session.linux, walk, task, IMAGES)
        assert [frame.kind for frame in walk.frames] == [FrameKind.CALL]
    assert (walk.end, walk.end_reason) == (WalkEnd.STOPPED, SysenterKeepsNothing())


def test_the_samples_kernel_threads_have_zeros_at_the_top(sample: Session) -> None:
    """What the tests above take for granted."""
    task = next(task for task in sample.tasks if task.pid == KTHREAD)
    stack = task_stack(sample.linux, task.address)
    assert stack is not None
    assert read_u64(sample.memory, task_registers(sample.linux, stack) + PT_REGS["cs"]) == 0
