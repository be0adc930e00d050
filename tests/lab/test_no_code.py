"""Kernels that die of a call to where no code is: the callers are those that the function had which was really called."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

import orcdbg
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.log_check import RowStatus, check
from orcdbg.commands.saved_registers import saved_sets
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, Mark, StackTrace
from orcdbg.unwind.reasons import CalledNoCode
from tests.lab import scripts
from tests.lab.boots import ENABLE, TRACING
from tests.lab.busy import busy_guest
from tests.lab.conftest import KERNELS
from tests.lab.gdbstub import StubError
from tests.lab.live import open_live
from tests.lab.shadow import Place
from tests.lab.strike import LOOP_SECONDS, PANIC_MARK, PANIC_SECONDS

pytestmark = pytest.mark.lab

WAIT, HITS = 20.0, 20
# Called through a pointer in a structure of operations; the newest name first.
CALLED = (("anon_pipe_write", "pipe_write"), ("anon_pipe_read", "pipe_read"))
RETURNS = "\n".join(
    f'echo "r:from_{name} {name}" >> kprobe_events' for name in ("vfs_write", "ksys_write", "ksys_read")
)
GRAPH = "echo 'ksys_*' > set_ftrace_filter; echo 'vfs_*' >> set_ftrace_filter; echo function_graph > current_tracer"
# What stands for return addresses on the way, which the kernel's own trace does not all see through.
TRACERS = {
    "nothing": "",
    "kretprobes": f"{TRACING}{RETURNS}\n{ENABLE}cd /\n",
    "function_graph": f"{TRACING}{GRAPH}; cd /\n",
}
DATA = "init_task"
KINDS = {
    "null": 0,
    "small": 0x18,
    "user": 0x401000,
    "unmapped": 0xFFFFDEAD00000000,
    "no address": 0xDEAD000000000100,
    "data": None,
}
WORK = "\n".join(scripts.WORKLOADS[name] for name in ("pipe", "timer", "copy"))


def stray(session: Session, kind: str) -> int:
    """Where the pointer leads."""
    address = KINDS[kind]
    return session.linux.address(DATA) if address is None else address


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("is_null", [True, False], ids=["null", "garbage"])
def test_the_caller_of_what_is_no_code_is_found(kernel: str, is_null: bool, seed: int, tmp_path: Path) -> None:
    """No frame is in doubt; the kernel's own trace, and the RIP of its oops, agree; the registers are listed."""
    random = Random(f"{seed} {kernel} {is_null}")
    kind = "null" if is_null else random.choice([name for name in KINDS if name != "null"])
    tracer, names = random.choice(list(TRACERS)), random.choice(CALLED)
    init = f"{scripts.write_symbols(['_text'])}{TRACERS[tracer]}echo {scripts.BUSY}\nwhile :; do\n{WORK}\ndone\n"
    # The last of the options for what a panic does counts: this one is to stay for a dump.
    with busy_guest(kernel, random, tmp_path, "panic=0", init=init) as (guest, found, console):
        with guest.stub() as stub:
            live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
            address = next(at for name in names if (at := live.session.linux.find_address(name)) is not None)
            ip = stray(live.session, kind)
            for _ in range(HITS):
                stub.set_breakpoint(address)
                is_hit = stub.resume(WAIT)
                stub.clear_breakpoint(address)
                registers = stub.read_registers()
                # The thunk's register still has the function's address.
                holders = [name for name, value in registers.items() if value == address and name != "rip"]
                if is_hit and registers["rip"] == address and holders:
                    break
            else:
                raise StubError(f"nobody called {names} through a register")
            callers = [(frame.ip, frame.sp) for frame in live.trace().frames[1:]]
            for name in ("rip", *holders):
                stub.write_register(name, ip)
        guest.wait_for(PANIC_MARK, PANIC_SECONDS)
        time.sleep(LOOP_SECONDS)
        guest.dump(tmp_path / "core")
    print(f"{kernel}: {names[-1]} by {holders}, {kind} {ip:#x}, under {tracer}")
    session = orcdbg.open(found.vmlinux, tmp_path / "core")
    (trace,) = (trace for trace in session.unwinder.traces(session.tasks) if trace.running)
    walk_is_right(trace, ip, callers)
    debugger = Debugger(session)
    log_agrees(debugger, trace)
    task = session.task(trace.task)
    used = {frame.cfa for frame in trace.frames if frame.entry is not None and frame.entry.row.type.value == "regs"}
    assert len(used) >= 2
    assert used <= {one.address for one in saved_sets(debugger, [task], False).sets}
    (tmp_path / "core").unlink()


def walk_is_right(trace: StackTrace, ip: int, callers: list[Place]) -> None:
    """From the panic, through the fault, to the callers that the function had."""
    assert (trace.end, [frame.doubt for frame in trace.frames if not frame.mark.is_sure]) == (End.USER, [])
    number = next(number for number, frame in enumerate(trace.frames) if frame.ip == ip)
    strayed = trace.frames[number]
    assert (strayed.kind, strayed.mark, strayed.notes) == (FrameKind.INTERRUPT, Mark.CHANGED, (CalledNoCode(ip),))
    assert [(frame.ip, frame.sp) for frame in trace.frames[number + 1 :]] == callers


def log_agrees(debugger: Debugger, trace: StackTrace) -> None:
    """Nothing contradicts, and what was called since is what handles the fault: the RIP and its callers are the log's too."""
    (found,) = check(debugger, [debugger.session.task(trace.task)]).checks
    assert [row for row in found.rows if row.contradicts] == []
    rows = {row.frame.index: row for row in found.rows if row.frame is not None}
    strayed = next(frame for frame in trace.frames if CalledNoCode(frame.ip) in frame.notes)
    assert rows[strayed.index].status is RowStatus.SAME
    assert rows[strayed.index].printed is not None
    assert rows[strayed.index].printed.is_rip  # type: ignore[union-attr]
    outer = {row.status for index, row in rows.items() if index > strayed.index}
    assert outer <= {RowStatus.SAME, RowStatus.GUESS}
    assert found.agrees
