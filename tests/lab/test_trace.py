"""What ftrace recorded, read from a snapshot, against what the guest's own tracefs printed before it; and a core for gdb."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.gcore import UserCore
from orcdbg.commands.standard import standard_commands
from orcdbg.commands.trace import TraceListing
from orcdbg.commands.trace_file import TraceFile
from orcdbg.subsystems.ftrace.events import EventTable, FieldForm
from orcdbg.subsystems.ftrace.traces import Trace, find_instance
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
    everything = registry.run(debugger, "trace")
    assert isinstance(everything, TraceListing)
    # Whoever was switched to most: which task that is, and where it ran, is the guest's own affair.
    switched = Counter((one.cpu, one.pid) for one in everything.records if one.system == "sched")
    ((cpu, pid), _) = switched.most_common(1)[0]
    some = registry.run(debugger, f"trace -c {cpu} -e sched_* -p {pid}")
    assert isinstance(some, TraceListing)
    expected = [one for one in everything.records if one.cpu == cpu and one.system == "sched" and one.pid == pid]
    assert [record for record in some.records if record.event.startswith("sched_")] == some.records
    assert some.records == expected
    assert len(expected) > 1


# A line of `trace-cmd report`: the task, its CPU, the time, the event, and what it says.
_REPORTED = re.compile(r" *(.*)-(\d+) +\[(\d+)\] +(\d+)\.(\d+): +(\w+): *(.*)")


def reported(tool: str, file: Path, *options: str) -> list[tuple[tuple[int, int, int, str], str, str]]:
    """The lines of trace-cmd's report: pid, CPU, time in us and event; then the name of the task, and what it says."""
    command = [tool, "report", "-N", *options, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found = []
    for line in done.stdout.splitlines():
        match = _REPORTED.fullmatch(line)
        if match is not None:
            comm, pid, cpu, seconds, rest, event, text = match.groups()
            found.append(((int(pid), int(cpu), int(seconds + rest), event), comm, text))
    return found


def numbers_of(text: str) -> dict[str, int]:
    """The fields of a raw line of a report that are numbers."""
    found = {}
    for name, value in re.findall(r"(\w+)=(-?\w+)", text):
        try:
            found[name] = int(value, 0 if value.startswith(("0x", "-")) else 10)
        except ValueError:
            continue
    return found


@pytest.mark.parametrize("instance", ["global", "other", "small"])
def test_a_trace_dat_is_one_to_trace_cmd(session: Session, tmp_path: Path, instance: str) -> None:
    """Time, task, CPU and event of every record, every number of its fields, and the words of those with plain formats."""
    tool = shutil.which("trace-cmd")
    if tool is None:
        pytest.skip("trace-cmd is not installed")
    debugger, registry = Debugger(session), standard_commands()
    file = tmp_path / "trace.dat"
    written = registry.run(debugger, f"trace dump -t {file} {instance}")
    assert isinstance(written, TraceFile)
    assert written.problems == []
    assert written.events > 1000

    events = EventTable(session.program)
    trace = Trace(find_instance(session.program, instance, Budget(100)), session.names, events)
    raws = list(trace.raw_records())
    ours = [trace.record(raw) for raw in raws]
    theirs, raw_theirs = reported(tool, file), reported(tool, file, "-R")
    expected = [(one.pid, one.cpu, (one.time + 500) // 1000, one.event) for one in ours]
    # Of one time, trace-cmd may show another CPU first.
    assert sorted(found for found, _, _ in theirs) == sorted(expected)
    assert sum(count for _, count in written.records) == len(expected)

    fields_of = {
        (raw.cpu, one.time, one.event, one.pid): (event, raw.data)
        for raw, one in zip(raws, ours, strict=True)
        if (event := trace.event_of(raw)) is not None
    }
    by_place = {(cpu, (time + 500) // 1000, name, pid): found for (cpu, time, name, pid), found in fields_of.items()}
    compared = 0
    for (pid, cpu, time, name), _, text in raw_theirs:
        event, data = by_place[cpu, time, name, pid]
        same_time = sum(found == (pid, cpu, time, name) for found in expected)
        if same_time > 1:
            continue
        for field, value in numbers_of(text).items():
            own = event.fields.get(field)
            if field == "mode" and "0%03o" in event.print_format:
                value = int(str(value), 8)  # since 6.18 system calls' formats have modes in octal
            if own is not None and own.form is FieldForm.NUMBER:
                bits = 8 * own.size
                held = int.from_bytes(data[own.offset : own.offset + own.size], "little")
                assert (value - held) % (1 << bits) == 0, (name, field, text)
                compared += 1

    plain_ones = {"sched_switch", "sched_wakeup", "softirq_entry", "irq_handler_entry", "sched_process_exec"}
    said = {(one.pid, one.cpu, (one.time + 500) // 1000, one.event, re.sub(r"\s+", " ", one.text)) for one in ours}
    words = [(*found, re.sub(r"\s+", " ", text)) for found, _, text in theirs if found[3] in plain_ones]
    assert [line for line in words if line not in said] == []
    names = {one.pid: one.comm for one in ours if one.comm is not None}
    assert [comm for found, comm, _ in theirs if names.get(found[0], comm) != comm] == []
    print(f"{instance}: {len(theirs)} records, {compared} numbers, {len(words)} texts")
    assert compared > len(theirs)


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
