"""sys: what is known of the machine."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.base.sizes import PAGE
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import parse_number
from orcdbg.kernel.tasks import online_cpus


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: a label, its value (None when it cannot be told) and why it is absent."""

    key: str
    label: str
    value: str | int | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class System(Result):
    """What is known of the whole machine."""

    facts: Sequence[Fact]


def _utsname(debugger: Debugger, member: str) -> str:
    linux = debugger.session.linux
    base = linux.address("init_uts_ns") + linux.types.offset("uts_namespace", "name")
    at = base + linux.types.offset("new_utsname", member)
    return read_cstring(linux.memory, at, 65).decode("utf-8", "backslashreplace")


def _fact(key: str, label: str, ask: Callable[[], str | int | None]) -> Fact:
    """A fact, or why it is absent: one that cannot be had takes no other with it."""
    try:
        return Fact(key, label, ask())
    except OrcdbgError as error:
        return Fact(key, label, None, str(error))


def _date(debugger: Debugger) -> str:
    linux = debugger.session.linux
    if "CRASHTIME" in debugger.session.snapshot.vmcoreinfo:
        seconds = parse_number(debugger.session.snapshot.vmcoreinfo["CRASHTIME"])
    else:
        keeper = linux.address("tk_core") if linux.find_address("tk_core") else linux.address("timekeeper_data")
        inside = linux.types.find("tk_data", "timekeeper")
        # tk_core is {seqcount, timekeeper} up to 6.13, then a struct tk_data; lockdep makes the seqcount longer.
        at = keeper + (inside.offset if inside else max(_sequence_size(debugger), 8))
        seconds = linux.member("timekeeper", "xtime_sec", at)
    if not 0 < seconds < 1 << 33:
        raise OrcdbgError(f"{seconds} s is no date")
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _sequence_size(debugger: Debugger) -> int:
    """Bytes of the sequence counter in front of the timekeeper, rounded up to a word."""
    types = debugger.session.types
    sizes = [types.size(name) for name in ("seqcount_raw_spinlock", "seqcount") if types.exists(name)]
    return -(-sizes[0] // 8) * 8 if sizes else 0


def _panic(debugger: Debugger) -> str | None:
    cpu = debugger.panic_cpu
    return None if cpu is None else f"on CPU {cpu}"


def _memory_size(debugger: Debugger) -> int:
    linux = debugger.session.linux
    return read_u64(linux.memory, linux.address("_totalram_pages")) * PAGE


@command("sys", summary="show what is known about the machine", group="machine")
def sys(debugger: Debugger, arguments: argparse.Namespace) -> System:
    """Answers with facts, and for each that cannot be had why."""
    session = debugger.session
    place = session.placement
    return System(
        [
            Fact("kernel", "KERNEL", session.image.path),
            Fact("dumpfile", "DUMPFILE", session.snapshot.path),
            Fact("format", "FORMAT", session.snapshot.format),
            _fact("cpus", "CPUS", lambda: len(online_cpus(session.linux))),
            _fact("date", "DATE", lambda: _date(debugger)),
            _fact("tasks", "TASKS", lambda: len(session.tasks)),
            _fact("nodename", "NODENAME", lambda: _utsname(debugger, "nodename")),
            _fact("release", "RELEASE", lambda: _utsname(debugger, "release")),
            _fact("version", "VERSION", lambda: _utsname(debugger, "version")),
            _fact("machine", "MACHINE", lambda: _utsname(debugger, "machine")),
            _fact("memory", "MEMORY", lambda: _memory_size(debugger)),
            Fact("panic", "PANIC", _panic(debugger)),
            _fact("pid", "PID", lambda: debugger.task.pid),
            _fact("command", "COMMAND", lambda: debugger.task.comm),
            _fact("task", "TASK", lambda: f"{debugger.task.address:#x}"),
            Fact("kaslr", "KASLR", f"{place.slide:#x} (from {place.source})"),
            Fact("phys_base", "PHYS_BASE", f"{place.phys_base:#x}"),
            Fact("page_table", "PAGE TABLE", f"{place.levels} levels"),
            _fact("orc", "ORC", lambda: f"layout {session.orc_layout.layout.name} ({session.orc_layout.decided_by})"),
            Fact("build_id", "BUILD-ID", session.image.build_id),
        ]
    )
