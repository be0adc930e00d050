"""Twenty thousand threads asleep in four places: their stacks at once, against one walk after another and the guest."""

from __future__ import annotations

import collections
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import orcdbg
from orcdbg.commands.crash import CrashStacks
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.stacks import StackGroups
from orcdbg.commands.standard import standard_commands
from orcdbg.target.session import Session
from orcdbg.unwind.batch.equal_stacks import SharedFrames
from orcdbg.unwind.frame import Mark
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.lab.conftest import KERNELS, OpenScene
from tests.lab.crowd import PLACES, THREADS, crowd
from tests.lab.proc_stacks import as_proc_prints
from tests.lab.scenes import Scene
from tests.lab.skips import skipped_if_unavailable
from tests.measured import run_measured

pytestmark = pytest.mark.lab
PEAK_MEBIBYTES = 400
WALKED_ALONE = 500


@pytest.fixture(scope="module")
def crowded(seed: int) -> tuple[Scene, Session]:
    """The scene, of a kernel that the seed chooses, and the session over it."""
    kernel = random.Random(seed).choice(KERNELS)
    with skipped_if_unavailable(f"{kernel} crowd"):
        scene = crowd(kernel, seed)
    return scene, orcdbg.open(scene.vmlinux, scene.snapshot)


def test_every_stack_of_a_crowd_is_walked_together_and_right(crowded: tuple[Scene, Session]) -> None:
    """All are there; those the guest printed are as it says, and some hundreds as they are when walked alone."""
    scene, session = crowded
    assert session.task_problems == []
    traces = session.unwinder.traces(session.tasks)
    assert collections.Counter(t.comm for t in session.tasks if t.comm in PLACES) == collections.Counter(
        {name: count + 1 for name, count in scene.counts.items()}
    )
    assert sum(isinstance(trace.frames, SharedFrames) for trace in traces) > 0.99 * THREADS
    assert {frame.mark for trace in traces for frame in trace.frames[:1]} == {Mark.AS_BUILT}
    by_pid = {trace.pid: trace for trace in traces if trace.pid and not trace.running}
    listed = [pid for pid in scene.stacks if pid in by_pid]
    assert len(listed) > 50
    for pid in listed:
        assert as_proc_prints(session, by_pid[pid]) == scene.stacks[pid], pid
    for number in random.Random(scene.seed).sample(range(len(traces)), WALKED_ALONE):
        assert traces[number] == session.unwinder.trace(session.tasks[number])


def test_a_crowd_is_a_few_groups(crowded: tuple[Scene, Session]) -> None:
    """One for each place, in number as the programs made them."""
    scene, session = crowded
    result = standard_commands().run(Debugger(session), "foreach bt --group")
    assert isinstance(result, StackGroups)
    assert len(result.groups) < 60
    sizes = sorted((len(group.pids) for group in result.groups[:4]), reverse=True)
    # The program itself pauses elsewhere, apart from a task or two that sleeps like a place's threads.
    for size, count in zip(sizes, sorted(scene.counts.values(), reverse=True), strict=True):
        assert count <= size <= count + 10


def test_a_crowds_stacks_take_little_memory(crowded: tuple[Scene, Session], tmp_path: Path) -> None:
    """At most 400 MiB at any time, text and JSON."""
    scene, _ = crowded
    for form in ("text", "json"):
        words = [sys.executable, "-m", "orcdbg", "--format", form, str(scene.vmlinux), str(scene.snapshot)]
        found = run_measured([*words, "-e", f"foreach bt > {tmp_path}/out"])
        assert found.status == 0
        assert found.mebibytes < PEAK_MEBIBYTES
        assert (tmp_path / "out").stat().st_size > 10_000_000


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_tasks_of_a_scene_are_the_same_together_and_alone(kernel: str, open_scene: OpenScene) -> None:
    """Of both scenes, frame by frame."""
    for name in ("idle", "nmi"):
        _, session = open_scene(kernel, name)
        traces = session.unwinder.traces(session.tasks)
        assert traces == [session.unwinder.trace(task) for task in session.tasks]
        assert sum(isinstance(trace.frames, SharedFrames) for trace in traces) > 0.8 * len(traces)


def crash_stacks(text: str) -> dict[int, list[list[str]]]:
    """What crash printed by pid, each line without the function's name: two names may have one address."""
    found: dict[int, list[list[str]]] = {}
    pid = -1
    for line in text.splitlines():
        if line.startswith("PID: "):
            pid = int(line.split()[1])
            found[pid] = [[line]]
        elif pid >= 0 and line.strip():
            words = line.split()
            found[pid].append([words[0], words[1], *words[3:]] if line.lstrip().startswith("#") else [line])
    return found


def test_crashs_lines_are_crashs(open_scene: OpenScene, tmp_path: Path) -> None:
    """Of every sleeping task of the one kernel that Debian's crash reads: slots, ips, modules, registers, headers."""
    if shutil.which("crash") is None:
        pytest.skip("crash is not installed here")
    scene, session = open_scene("5.10", "idle")
    commands = tmp_path / "commands"
    commands.write_text(f"foreach bt > {tmp_path}/crash\nquit\n", encoding="ascii")
    words = ["crash", "-s", "-i", str(commands), str(scene.vmlinux), str(scene.snapshot)]
    subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False)
    if not (tmp_path / "crash").exists():
        pytest.skip("this crash does not open a 5.10 snapshot")
    theirs = crash_stacks((tmp_path / "crash").read_text("utf-8", "replace"))
    result = standard_commands().run(Debugger(session), "foreach bt --crash")
    assert isinstance(result, CrashStacks)
    ours = crash_stacks(plain(lines_of(result, None)))
    asleep = [trace.pid for trace in result.stacks.stacks if not trace.running]
    assert len(asleep) > 40
    # crash takes any word that looks like text for a frame, and it ends some stacks early: whatever else differs is wrong.
    different = [pid for pid in asleep if ours[pid] != theirs.get(pid)]
    assert len(different) <= 3
    by_pid = {task.pid: task for task in session.tasks}
    for pid in different:
        shown, read = ({line[1] for line in found.get(pid, []) if line[0].startswith("#")} for found in (ours, theirs))
        if not shown <= read | {ours[pid][1][1]}:
            assert read < shown, pid
            assert as_proc_prints(session, session.unwinder.trace(by_pid[pid])) == scene.stacks[pid], pid
