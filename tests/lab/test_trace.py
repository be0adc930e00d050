"""What ftrace recorded, read from a snapshot, against what the guest's own tracefs printed before it; and a core for gdb."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.gcore import UserCore
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.trace import TraceListing
from orcdbg.target.session import Session
from orcdbg.unwind.frame import FrameKind
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of
from tests.lab.recorded import stats, traces
from tests.lab.scenes import Scene

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("kernel", kernels_of("traces"))]

# The kernel hashes pointers and ours are true; in system calls it writes numbers in decimal since 6.18.
_POINTER = re.compile(r"\b(ptr|page|hrtimer|timer|obj)=(0x)?[0-9a-f]{16}\b")
# The kernel's own words for openat() leave out a mode that nothing is created with.
_UNUSED_MODE = re.compile(r", mode: 0000\)")
_CALL = re.compile(r"\b(dfd|filename): (0x)?[0-9a-f]+")


@pytest.fixture
def scene(kernel: str, open_scene: OpenScene) -> Scene:
    """The snapshot, and what the guest printed."""
    return open_scene(kernel, "recorded")[0]


@pytest.fixture
def session(kernel: str, open_scene: OpenScene) -> Session:
    """The session over the snapshot."""
    return open_scene(kernel, "recorded")[1]


def instance_of(place: str) -> str:
    """The name of the trace at a place below tracefs."""
    return "global" if place == "." else place.rpartition("/")[2]


def comparable(line: str) -> str:
    """A line of a trace without what the two may write differently: columns' widths, hashed pointers, radix."""
    line = _UNUSED_MODE.sub(")", line)
    line = _CALL.sub(r"\1: N", _POINTER.sub(r"\1=P", line.strip()))
    return re.sub(r"\s+", " ", line)


def without_migration(line: str) -> str:
    """A line whose fifth letter of flags, which older kernels do not print, is left out."""
    return re.sub(r"(\] \S{4})\S ", r"\1 ", line)


def test_records_read_as_the_guests_own(scene: Scene, session: Session) -> None:
    """Every line of three traces: time, task, CPU, flags and text; of nothing else, and none is missing."""
    debugger, registry = Debugger(session), standard_commands()
    compared = 0
    for place, theirs in traces(scene).items():
        result = registry.run(debugger, f"trace {instance_of(place)}")
        assert isinstance(result, TraceListing)
        assert result.problems == []
        assert all(record.is_parsed for record in result.records)
        ours = [line for line in plain(lines_of(result, None)).splitlines() if not line.startswith("#")]
        normal = without_migration if all(re.search(r"\] \S{4} ", line) for line in theirs if "] " in line) else str
        assert [normal(comparable(line)) for line in ours] == [normal(comparable(line)) for line in theirs]
        compared += len(theirs)
    print(f"{scene.kernel}: {compared} lines of 3 traces")
    assert compared > 1000


def test_counts_are_the_guests_own(scene: Scene, session: Session) -> None:
    """Records held and overwritten, by CPU; in one trace some were overwritten."""
    debugger, registry = Debugger(session), standard_commands()
    told = stats(scene)
    overwritten = 0
    for place in {place for place, _ in told}:
        result = registry.run(debugger, f"trace -n 1 {instance_of(place)}")
        assert isinstance(result, TraceListing)
        found = {counts.cpu: (counts.held, counts.overwritten, counts.dropped) for counts in result.counts}
        expected = {
            cpu: (numbers["entries"], numbers["overrun"], numbers["dropped events"])
            for (where, cpu), numbers in told.items()
            if where == place
        }
        assert {cpu: found.get(cpu, (0, 0, 0)) for cpu in expected} == expected
        overwritten += sum(counts.overwritten for counts in result.counts)
    assert overwritten > 0


def test_records_are_chosen_by_cpu_event_and_task(session: Session) -> None:
    """And those that are left are among all."""
    debugger, registry = Debugger(session), standard_commands()
    everything, some = registry.run(debugger, "trace"), registry.run(debugger, "trace -c 0 -e sched_* -p 1")
    assert isinstance(everything, TraceListing)
    assert isinstance(some, TraceListing)
    expected = [one for one in everything.records if one.cpu == 0 and one.system == "sched" and one.pid == 1]
    assert [record for record in some.records if record.event.startswith("sched_")] == some.records
    assert some.records == expected
    assert len(expected) > 1


def test_a_core_of_a_process_is_one_to_gdb(session: Session, tmp_path: Path) -> None:
    """Registers and memory of the guest's first process, read by gdb, are those that the snapshot has."""
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    debugger, registry = Debugger(session), standard_commands()
    file = tmp_path / "core"
    result = registry.run(debugger, f"gcore -o {file} 1")
    assert isinstance(result, UserCore)
    user = debugger.trace(session.task(1)).frames[-1]
    assert user.kind is FrameKind.USER
    rsp, rip = user.registers["rsp"].value, user.registers["rip"].value
    asked = ["info registers rip rsp", f"x/4gx {rsp:#x}", f"x/4gx {rip:#x}", "info auxv", "info proc mappings"]
    words = [word for one in asked for word in ("-ex", one)]
    done = subprocess.run(
        [gdb, "-nx", "-q", "-batch", *words, "-c", str(file)], capture_output=True, text=True, check=True
    )
    assert f"rip            {rip:#x}" in done.stdout
    memory = session.kernel_memory.user_memory(session.task(1))
    for address in (rsp, rip):
        data = memory.read(address, 32)
        numbers = [f"0x{int.from_bytes(data[i : i + 8], 'little'):016x}" for i in range(0, 32, 8)]
        shown = re.findall(r"0x[0-9a-f]{16}\b", "\n".join(line for line in done.stdout.splitlines() if "\t" in line))
        assert [number for number in numbers if number not in shown] == []
    assert "AT_ENTRY" in done.stdout
    assert "/bin/busybox" in done.stdout
