"""Kernels stopped at a panic or in user mode: every stack of every CPU, and the kernel's own word about one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import orcdbg
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.log_check import LogChecks, RowStatus, check
from orcdbg.kernel.log import read_log
from orcdbg.kernel.oops import printed_traces
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, FrameKind, StackTrace
from orcdbg.unwind.saved_registers import is_user
from tests.lab.conftest import KERNELS
from tests.lab.guest import GuestError
from tests.lab.panics import KINDS, panic
from tests.lab.proc_stacks import is_gone
from tests.lab.scenes import Scene
from tests.lab.skips import skipped_if_unavailable

pytestmark = pytest.mark.lab
PANICS = [kind for kind in KINDS if kind != "user"]


def make(kernel: str, how: str, seed: int, home: Path) -> tuple[Scene, Session]:
    """The scene, of this seed or, where the guest died in the emulator, of the next."""
    with skipped_if_unavailable(f"{kernel} {how}"):
        try:
            scene = panic(kernel, how, seed, home)
        except GuestError as error:
            print(f"{kernel} {how}: {error}; trying seed {seed + 1}")
            scene = panic(kernel, how, seed + 1, home)
    return scene, orcdbg.open(scene.vmlinux, scene.snapshot)


def no_frame_is_in_doubt(session: Session) -> dict[int, StackTrace]:
    """Every task's stack comes to a proper end and none of its frames is marked; those of the CPUs, by CPU."""
    running = {}
    for task in session.tasks:
        trace = session.unwinder.trace(task)
        if is_gone(task, trace):
            continue
        assert trace.end in (End.USER, End.KTHREAD, End.IDLE, End.BOOT), (task, trace.end_reason)
        assert [(f.index, f.doubt) for f in trace.frames if not f.mark.is_sure] == [], (task, trace.frames)
        if trace.running and trace.cpu is not None:
            running[trace.cpu] = trace
    return running


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("how", PANICS)
def test_a_panics_own_trace_agrees_with_ours(kernel: str, how: str, seed: int, tmp_path: Path) -> None:
    """Every line without `?` is ours at the same place; other CPUs, which were stopped for it, end properly too."""
    _, session = make(kernel, how, seed, tmp_path)
    running = no_frame_is_in_doubt(session)
    debugger = Debugger(session)
    assert debugger.panic_cpu in running
    result = check(debugger, [session.task(running[debugger.panic_cpu].task)])
    assert isinstance(result, LogChecks)
    (found,) = result.checks
    assert [row for row in found.rows if row.contradicts] == []
    matched = [row for row in found.rows if row.status in (RowStatus.SAME, RowStatus.GUESS)]
    sure = [line for line in found.printed.frames if line.sure]
    returned = [row for row in found.rows if row.status == RowStatus.RETURNED]
    assert len([row for row in matched if row.status == RowStatus.SAME]) == len(sure) - len(returned)
    assert len(matched) >= 4
    if found.printed.reached_user:
        assert running[debugger.panic_cpu].end == End.USER
    (tmp_path / "core").unlink()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_cpu_in_user_mode_has_no_kernel_frames(kernel: str, seed: int, tmp_path: Path) -> None:
    """crash printed ten leftover frames of an old page fault there (peers-crash, section 2)."""
    scene, session = make(kernel, "user", seed, tmp_path)
    running = no_frame_is_in_doubt(session)
    in_user = [trace for trace in running.values() if is_user(trace.frames[0].registers)]
    print(f"{kernel}: {len(in_user)} of {len(running)} CPUs in user mode")
    for trace in in_user:
        assert [(f.kind, f.index) for f in trace.frames] == [(FrameKind.USER, 0)]
        assert trace.end == End.USER
    records, problems = read_log(session.linux)
    assert (problems, printed_traces(records)) == ([], [])
    console = scene.serial.read_text(errors="replace")
    shown = [one.text for one in records if one.text and one.text in console]
    assert len(shown) > len(records) // 2
    (tmp_path / "core").unlink()
