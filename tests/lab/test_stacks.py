"""Stacks of real kernels, against the guest's own unwinder and against what the lab did to the guest."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from orcdbg.orc.effective import Source
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, Frame, FrameKind, Mark, StackTrace
from orcdbg.x86.instructions import decode_one
from tests.lab.conftest import KERNELS, OpenScene
from tests.lab.proc_stacks import as_proc_prints, blocked_tasks, is_gone

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", KERNELS)]

# What the kernel prints of a panic: `[    5.1]  do_wait+0x160/0x2f0 [module]`, with `? ` before a guess.
_TRACE_LINE = re.compile(r"\]\s+(?:<TASK>|\? )?([A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?)\s*$")


def test_every_blocked_task_is_as_the_guest_says(kernel: str, open_scene: OpenScene) -> None:
    """Frame by frame, symbol, offset and size, modules included; no mark, nothing after user mode, an end that is stated."""
    scene, session = open_scene(kernel, "idle")
    tasks = blocked_tasks(session, scene.stacks)
    assert len(tasks) > 40
    assert {task.pid for task in tasks} >= set(scene.stacks) - {t.pid for t in session.tasks if t.pid == 0}
    modules = 0
    for task in tasks:
        trace = session.unwinder.trace(task)
        assert as_proc_prints(session, trace) == scene.stacks[task.pid], task
        assert {frame.mark for frame in trace.frames} == {Mark.AS_BUILT}, task
        assert trace.end == (End.KTHREAD if task.is_kernel_thread else End.USER), task
        assert [f.kind for f in trace.frames[:-1]].count(FrameKind.USER) == 0, task
        modules += any(f.location is not None and f.location.module is not None for f in trace.frames)
    assert modules > 0, "no task slept in a module: the scene does not test module tables"


def test_every_task_ends_with_a_reason(kernel: str, open_scene: OpenScene) -> None:
    """Running tasks, swappers and tasks that moved included."""
    _, session = open_scene(kernel, "idle")
    assert session.task_problems == []
    for task in session.tasks:
        trace = session.unwinder.trace(task)
        if is_gone(task, trace):
            continue
        assert trace.end in (End.USER, End.KTHREAD, End.IDLE, End.BOOT), (task, trace.end_reason)
        assert [frame.mark for frame in trace.frames if frame.mark != Mark.AS_BUILT] == [], task


def struck_frame(trace: StackTrace, address: int) -> Frame:
    """The frame that the NMI interrupted."""
    return next(frame for frame in trace.frames if frame.kind == FrameKind.INTERRUPT and frame.ip == address)


def test_an_nmi_between_patched_push_and_pop_is_walked_through(kernel: str, open_scene: OpenScene) -> None:
    """To the outermost frame; corrected where the kernel has one row for the site, by its own rows where it has all."""
    scene, session = open_scene(kernel, "nmi")
    assert scene.bp_address is not None
    (address,) = [task for task, (cpu, _) in session.unwinder.running.items() if cpu == 0]
    trace = session.unwinder.trace(session.task(address))
    frame = struck_frame(trace, scene.bp_address)
    assert trace.end in (End.USER, End.KTHREAD, End.IDLE), trace.end_reason
    assert frame.registers["rsp"].value == scene.registers["rsp"]
    assert frame.patch is not None
    assert frame.patch.instructions == ("pushfq",)
    has_all_rows = session.image.section_data(".parainstructions") == b"" or not _rows_are_shared(session, frame)
    expected = (0, Source.ORC, Mark.AS_BUILT) if has_all_rows else (8, Source.PATCH, Mark.CHANGED)
    assert (frame.patch.adjust, frame.source, frame.mark) == expected
    others = [other for other in trace.frames if other is not frame]
    assert {other.mark for other in others if other.source != Source.TRAMPOLINE} == {Mark.AS_BUILT}
    thunks = [other for other in others if other.source == Source.TRAMPOLINE]  # an interrupt may strike one
    assert {other.mark for other in thunks} <= {Mark.CHANGED}
    caller = trace.frames[frame.index + 1]
    assert calls(session, caller, frame)


def _rows_are_shared(session: Session, frame: Frame) -> bool:
    """True where one ORC row covers the whole site, so that the kernel itself goes wrong between its instructions."""
    assert frame.patch is not None
    first, here = session.find_orc(frame.patch.site.address), session.find_orc(frame.ip)
    return first == here


def calls(session: Session, caller: Frame, callee: Frame) -> bool:
    """Whether the instruction before the caller's return address is a call of the callee's function."""
    assert callee.location is not None
    insn = decode_one(session.text.read(caller.ip - 5, 5), caller.ip - 5)
    return insn is not None and insn.is_call and insn.target == callee.location.start


def test_the_kernels_own_panic_trace_is_part_of_ours(kernel: str, open_scene: OpenScene) -> None:
    """Every line that the kernel printed without `?` is one of our frames, in the same order."""
    scene, session = open_scene(kernel, "nmi")
    text = scene.serial.read_text(errors="replace").replace("\r", "")
    body = text[text.index("Kernel panic - not syncing") :].partition("Kernel Offset: ")[0]
    printed = [m.group(1) for m in map(_TRACE_LINE.search, body.splitlines()) if m and "? " not in m.group(0)]
    assert printed, "no trace in the log"
    (address,) = [task for task, (cpu, _) in session.unwinder.running.items() if cpu == 0]
    trace = session.unwinder.trace(session.task(address))
    ours = [session.names.describe(f.ip, f.exact) for f in trace.frames if f.kind != FrameKind.USER]
    position = 0
    for line in printed:
        if line in ours[position:]:
            position += ours[position:].index(line) + 1
        else:
            # The trace begins above panic(): what printed it had returned when the snapshot was taken.
            assert position == 0, (line, ours)
    assert position > 0


def test_the_program_answers_for_a_real_kernel(kernel: str, open_scene: OpenScene) -> None:
    """The command line a user types, in JSON: each command one line, none failing."""
    scene, _ = open_scene(kernel, "nmi")
    commands = [
        "bt",
        "bt --why 3",
        "bt -a",
        "foreach bt",
        "ps",
        "mod",
        "sys",
        "regs",
        "orc schedule",
        "dis schedule 20",
    ]
    commands += [
        "patch list --symbol schedule",
        "patch at schedule",
        "sym schedule",
        "rd linux_banner 4",
        "set",
        "up",
        "down",
    ]
    words = [word for command in commands for word in ("-e", command)]
    run = [sys.executable, "-m", "orcdbg", str(scene.vmlinux), str(scene.snapshot), "--format", "json", *words]
    done = subprocess.run(run, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["command"], line["ok"]) for line in lines] == [(command, True) for command in commands]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_modules_data_has_names_and_sizes(kernel: str, open_scene: OpenScene) -> None:
    """Its `struct module` is its own symbol `__this_module`, behind its text or in an area of its own."""
    _, session = open_scene(kernel, "idle")
    assert session.names.modules
    for module in session.names.modules:
        place = session.names.at(module.address)
        assert place is not None
        assert (place.symbol, place.module, place.start) == ("__this_module", module.name, module.address)
        assert place.size > 0
        assert any(start <= place.start and place.start + place.size <= start + size for start, size in module.ranges)
