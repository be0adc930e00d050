"""Double faults: a task's stack is overflowed for real, into its guard page, or its stack pointer leads nowhere."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

import orcdbg
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.log_check import LogChecks, RowStatus, check
from orcdbg.kernel.stacks import Stack, StackKind, task_stack
from orcdbg.kernel.tasks import current_task
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, StackTrace
from orcdbg.unwind.reasons import (
    InterruptedPointerOffStacks,
    NothingConfirms,
    Overflowed,
    ReachedThroughDoubt,
    UserRegistersNotAtTop,
)
from tests.lab import scripts
from tests.lab.busy import busy_guest
from tests.lab.conftest import KERNELS
from tests.lab.gdbstub import StubError
from tests.lab.live import LiveKernel, open_live
from tests.lab.shadow import Place, Shadow, read_words
from tests.lab.strike import LOOP_SECONDS, PANIC_MARK, PANIC_SECONDS

pytestmark = pytest.mark.lab

WAIT, CHUNK, STEPS = 20.0, 512, 120
FUNCTIONS = ("vfs_write", "vfs_read", "ksys_write", "ksys_read")
WORK = "\n".join(scripts.WORKLOADS[name] for name in ("pipe", "timer", "copy"))
INIT = scripts.write_symbols(["_text"]) + f"echo {scripts.BUSY}\nwhile :; do\n{WORK}\ndone\n"
NOWHERE = 0xFFFFC8FFFFFF0000  # in the hole below vmalloc's area, never mapped; above it the same with five levels


def stop(live: LiveKernel, address: int) -> dict[str, int]:
    """Runs the guest to an address."""
    live.stub.set_breakpoint(address)
    is_hit = live.stub.resume(WAIT)
    live.stub.clear_breakpoint(address)
    registers = live.stub.read_registers()
    if not is_hit or registers["rip"] != address:
        raise StubError(f"the guest did not come to {address:#x}")
    return registers


def own_stack(live: LiveKernel) -> Stack:
    """The current task's."""
    stack = task_stack(live.session.linux, current_task(live.session.linux, 0) or 0)
    assert stack is not None
    return stack


def lower(live: LiveKernel, left: int) -> list[Place]:
    """Moves what is on the current task's stack down, until so many bytes are left below it: its frames as they are then.

    A function that counts from rbp keeps its old frame, and what is above that stays.
    """
    trace, stack = live.trace(), own_stack(live)
    assert (trace.end, {frame.doubt for frame in trace.frames}) == (End.USER, {None})
    sp = trace.frames[0].sp
    data, to = live.session.memory.read(sp, stack.end - sp), stack.begin + left
    for at in range(0, len(data), CHUNK):
        live.stub.write_memory(live.session.memory.translate(to + at), data[at : at + CHUNK])
    live.stub.write_register("rsp", to)
    places, moved = list[Place](), True
    for below, frame in zip((None, *trace.frames), trace.frames, strict=False):
        moved = moved and (below is None or below.rule is None or not below.rule.startswith("bp"))
        places.append((frame.ip, frame.sp - sp + to if moved and frame.kind != FrameKind.USER else frame.sp))
    return places


def fault(live: LiveKernel) -> tuple[Place, StackTrace]:
    """Runs to the double fault: what the CPU saved of where it struck, and the stack there."""
    registers = stop(live, live.session.linux.address("asm_exc_double_fault"))
    ip, _, _, sp, _ = read_words(live, registers["rsp"] + 8, 5)
    return (ip, sp), live.trace()


def check_overflow(live: LiveKernel, random: Random) -> bool:
    """The frames above the overflow are those that were there; entry code and handler are walked at every instruction.

    Returns:
        Whether the user's registers were moved down with the frames.
    """
    left = 8 * random.randrange(2, 12)
    known = lower(live, left)
    (ip, sp), trace = fault(live)
    stack = own_stack(live)
    where = live.session.names.describe(ip)
    assert stack.begin - 4096 <= sp <= stack.begin + left, where  # an interrupt may come first, and find no room
    assert [frame.stack for frame in trace.frames[:2]] == [StackKind.DF, StackKind.TASK]
    assert (trace.frames[1].ip, trace.frames[1].sp) == (ip, sp)
    shown = [(frame.ip, frame.sp) for frame in trace.frames]
    # The function went on from its entry, and may have called others by now.
    assert shown[-len(known) + 1 :] == known[1:], where
    # Where every frame was moved the user's registers were too, and there they are not believed.
    doubts = [frame.doubt for frame in trace.frames if frame.doubt is not None]
    expected = (UserRegistersNotAtTop, ReachedThroughDoubt, NothingConfirms)
    assert [doubt for doubt in doubts if not isinstance(doubt, expected)] == []
    assert (Overflowed() in trace.frames[1].notes) == (sp < stack.begin)
    shadow = Shadow(live, shown[1:])
    shadow.watch(STEPS)
    print(f"struck at {where}, {sp - stack.begin} bytes above the guard page; {shadow.stops} stops")
    assert [text for text in shadow.unsure if "the user's registers end" not in text] == []
    return any(isinstance(doubt, UserRegistersNotAtTop) for doubt in doubts)


def check_nowhere(live: LiveKernel) -> None:
    """Of a stack that is none, the place that was struck is shown, and why there is no more."""
    live.stub.write_register("rsp", NOWHERE)
    (ip, sp), trace = fault(live)
    sure = [(frame.ip, frame.sp) for frame in trace.frames[1:] if frame.reliable and not frame.doubt]
    assert set(sure) <= {(ip, sp)}
    assert trace.end == End.STOPPED
    assert trace.end_reason == InterruptedPointerOffStacks(sp)


def check_panic(session: Session, is_user_moved: bool) -> None:
    """The panic's stack agrees with what the kernel printed of it; the overflowed stack is reached through #DF's own.

    Where the user's registers were moved, what the kernel takes for sure there is marked here.
    """
    debugger = Debugger(session)
    (trace,) = (trace for trace in session.unwinder.traces(session.tasks) if trace.running)
    assert StackKind.DF in {frame.stack for frame in trace.frames}
    result = check(debugger, [session.task(trace.task)])
    assert isinstance(result, LogChecks)
    (found,) = result.checks
    assert [row for row in found.rows if row.contradicts] == []
    statuses = {row.status for row in found.rows}
    assert RowStatus.SAME in statuses or (is_user_moved and RowStatus.DOUBT in statuses)
    own = [frame for frame in trace.frames if frame.stack is StackKind.DF]
    assert [(frame.index, frame.doubt) for frame in own if not frame.mark.is_sure] == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_stack_overflow_is_walked_as_far_as_frames_are_to_be_had(kernel: str, seed: int, tmp_path: Path) -> None:
    """Through the double fault's stack, into the guard page and out of it; and the same from the dump after the panic."""
    random = Random(f"{seed} {kernel}")
    # The last of the options for what a panic does counts: this one is wanted, and is to stay for a dump.
    with busy_guest(kernel, random, tmp_path, "panic=0", init=INIT) as (guest, found, console):
        with guest.stub() as stub:
            live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
            stop(live, live.session.linux.address(random.choice(FUNCTIONS)))
            is_overflow = random.random() < 0.75
            if is_overflow:
                is_user_moved = check_overflow(live, random)
            else:
                check_nowhere(live)
        if not is_overflow:
            return
        guest.wait_for(PANIC_MARK, PANIC_SECONDS)
        time.sleep(LOOP_SECONDS)
        guest.dump(tmp_path / "core")
    check_panic(orcdbg.open(found.vmlinux, tmp_path / "core"), is_user_moved)
    (tmp_path / "core").unlink()
