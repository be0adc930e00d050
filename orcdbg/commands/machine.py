"""ps, mod, sys: the tasks, the modules, and the machine."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.base.sizes import PAGE
from orcdbg.commands.backtrace import parse_number
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Fact, Modules, Result, System, Tasks
from orcdbg.kernel.tasks import Task, online_cpus

_COLUMNS = {"state": ("__state", "state"), "cpu": ("thread_info.cpu", "cpu"), "parent": ("real_parent",)}


def _ps_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("which", nargs="*", metavar="PID|TASK|COMMAND", help="only these tasks")
    parser.add_argument("-k", "--kernel", action="store_true", help="only kernel threads")
    parser.add_argument("-u", "--user", action="store_true", help="only user tasks")
    parser.add_argument("-A", "--active", action="store_true", help="only tasks on a CPU")
    parser.add_argument("-G", "--leaders", action="store_true", help="only thread group leaders")


def _named(task: Task, words: list[str]) -> bool:
    for word in words:
        if word == task.comm:
            return True
        if word[:1].isdigit() and parse_number(word) in (task.pid, task.address):
            return True
    return not words


def _ps(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    session = debugger.session
    running = frozenset(session.unwinder.running)
    tests: list[tuple[bool, Callable[[Task], bool]]] = [
        (arguments.kernel, lambda task: task.is_kernel_thread),
        (arguments.user, lambda task: not task.is_kernel_thread),
        (arguments.active, lambda task: task.address in running),
        (arguments.leaders, lambda task: task.tgid in (None, task.pid)),
    ]
    wanted = [test for is_on, test in tests if is_on]
    tasks = [t for t in session.tasks if all(test(t) for test in wanted) and _named(t, arguments.which)]
    absent = [
        name for name, paths in _COLUMNS.items() if not any(session.types.has("task_struct", path) for path in paths)
    ]
    return Tasks(tasks, running, session.task_problems, absent)


def _mod(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    names = debugger.session.names
    return Modules(names.modules, names.problems)


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


def _sys(debugger: Debugger, arguments: argparse.Namespace) -> Result:
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


COMMANDS = (
    Command(
        "ps",
        "list tasks",
        "machine",
        _ps,
        _ps_arguments,
        examples=(("ps -A", "the tasks on a CPU"), ("ps -u", "user tasks only")),
        operands=("task",),
    ),
    Command("mod", "list the loaded modules", "machine", _mod, aliases=("lsmod",)),
    Command("sys", "show what is known of the machine", "machine", _sys),
)
