"""sys: what is known of the machine, its system calls, and what its kernel was built from."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.intervals import number_runs
from orcdbg.base.reading import read_cstring
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result, TextLines
from orcdbg.commands.task_choice import parse_number
from orcdbg.kernel.log import LogRecord, read_log
from orcdbg.kernel.syscalls import MAX_SYSCALLS, syscall_name
from orcdbg.kernel.tasks import started_cpus
from orcdbg.subsystems import machine


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


def read_utsname(debugger: Debugger, member: str) -> str:
    """A member of `struct new_utsname`, such as `release`; OrcdbgError where it cannot be read."""
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


def stopping_date(debugger: Debugger) -> int:
    """When the machine was stopped, in seconds from 1970, by its own clock.

    Raises:
        OrcdbgError: that is no date, or cannot be read.
    """
    if "CRASHTIME" in debugger.session.snapshot.vmcoreinfo:
        seconds = parse_number(debugger.session.snapshot.vmcoreinfo["CRASHTIME"])
    else:
        seconds = int(machine.timekeeper(debugger.session.program).member_("xtime_sec"))
    if not 0 < seconds < 1 << 33:
        raise OrcdbgError(f"{seconds} s is no date")
    return seconds


def _date(debugger: Debugger) -> str:
    date = datetime.datetime.fromtimestamp(stopping_date(debugger), datetime.UTC)
    return date.strftime("%Y-%m-%d %H:%M:%S UTC")


def _panic(debugger: Debugger) -> str | None:
    cpu = debugger.panic_cpu
    return None if cpu is None else f"on CPU {cpu}"


_PANIC = "Kernel panic - not syncing"


def _panic_message(debugger: Debugger) -> str | None:
    return None if debugger.panic_cpu is None else panic_message(read_log(debugger.session.linux)[0])


def panic_message(records: Sequence[LogRecord]) -> str | None:
    """What panic() printed, of the last panic in a log; a program may have written the same words, which do not count."""
    lines = (line for record in reversed(records) if not record.is_from_user_space for line in record.text.splitlines())
    return next((line for line in lines if line.startswith(_PANIC)), None)


@dataclass(frozen=True, slots=True)
class Taints(Result):
    """What taints the kernel: `mask` as the kernel keeps it, and each bit's letter and meaning."""

    mask: int
    taints: Sequence[tuple[int, str, str]]


@dataclass(frozen=True, slots=True)
class SyscallEntry:
    """An entry of the table of system calls: `symbol` of its function, `name` of the call, None where it is no call's."""

    number: int
    function: int
    symbol: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class SyscallTable(Result):
    """The table of system calls."""

    calls: Sequence[SyscallEntry]


@dataclass(frozen=True, slots=True)
class MachineIdentity(Result):
    """What the firmware says of the machine (DMI), by name."""

    strings: Sequence[tuple[str, str]]


def _average(debugger: Debugger) -> str:
    return ", ".join(f"{value:.2f}" for value in machine.load_averages(debugger.session.program))


def _taint_letters(debugger: Debugger) -> str | None:
    return machine.taint_letters(machine.taint_mask(debugger.session.program)) or None


def _cpu_numbers(debugger: Debugger, name: str) -> str:
    """The CPUs of a mask, runs drawn together."""
    return number_runs(machine.cpu_set(debugger.session.program, name))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("config",), help="the configuration that the kernel was built from")
    parser.add_argument(
        "-c",
        "--calls",
        nargs="?",
        const="",
        metavar="WORD",
        help="the table of system calls, or those with this number or name",
    )
    parser.add_argument("-t", "--taints", action="store_true", help="what taints the kernel, and what that means")
    parser.add_argument("-i", "--identity", action="store_true", help="what the firmware says of the machine (DMI)")


def _calls(debugger: Debugger, word: str) -> SyscallTable:
    linux = debugger.session.linux
    symbol = linux.symbols.get("sys_call_table")
    address = linux.run_time(symbol)
    located = linux.symbols.at(symbol.address)
    size = symbol.size or (located[1] if located is not None else 0)
    count = min(size // 8, MAX_SYSCALLS)
    data = linux.memory.read(address, 8 * count)
    functions = [int.from_bytes(data[8 * number : 8 * number + 8], "little") for number in range(count)]
    symbols = names_of(debugger, functions)
    found = [
        SyscallEntry(number, function, symbols.get(function), syscall_name(linux, number))
        for number, function in enumerate(functions)
    ]
    wanted = [call for call in found if word in ("", str(call.number), hex(call.number)) or word in (call.symbol or "")]
    return SyscallTable(wanted)


@command(
    "sys",
    summary="show what is known about the machine",
    group="machine",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(
        ("sys", "the machine, in short"),
        ("sys -t", "what taints the kernel"),
        ("sys -c clone", "entries of the table of system calls"),
        ("sys config", "what the kernel was built from, where it keeps that"),
    ),
)
def sys(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with facts, and for each that cannot be had why; or with what an option asks for."""
    program = debugger.session.program
    if arguments.what is not None:
        return TextLines(machine.built_configuration(program).splitlines())
    if arguments.calls is not None:
        return _calls(debugger, arguments.calls)
    if arguments.taints:
        mask = machine.taint_mask(program)
        set_bits = [(bit, *words) for bit, words in enumerate(machine.TAINTS) if mask >> bit & 1]
        return Taints(mask, set_bits)
    if arguments.identity:
        return MachineIdentity(machine.firmware_strings(program))
    return facts_of(debugger)


def facts_of(debugger: Debugger, keys: Container[str] | None = None) -> System:
    """What is known of the machine, or the facts of these keys alone: not all are to be had at once."""
    session = debugger.session
    place = session.placement
    questions: Sequence[tuple[str, str, Callable[[], str | int | None]]] = (
        ("kernel", "KERNEL", lambda: session.image.path),
        ("dumpfile", "DUMPFILE", lambda: session.snapshot.path),
        ("format", "FORMAT", lambda: session.snapshot.format),
        ("cpus", "CPUS", lambda: len(started_cpus(session.linux))),
        ("cpus_present", "PRESENT", lambda: _cpu_numbers(debugger, "__cpu_present_mask")),
        ("cpus_online", "ONLINE", lambda: _cpu_numbers(debugger, "__cpu_online_mask")),
        ("date", "DATE", lambda: _date(debugger)),
        ("uptime", "UPTIME", lambda: machine.uptime(session.program)),
        ("load_average", "LOAD AVERAGE", lambda: _average(debugger)),
        ("tasks", "TASKS", lambda: len(session.tasks)),
        ("nodename", "NODENAME", lambda: read_utsname(debugger, "nodename")),
        ("release", "RELEASE", lambda: read_utsname(debugger, "release")),
        ("version", "VERSION", lambda: read_utsname(debugger, "version")),
        ("machine", "MACHINE", lambda: read_utsname(debugger, "machine")),
        ("memory", "MEMORY", lambda: machine.total_memory(session.program)),
        ("command_line", "COMMAND LINE", lambda: machine.command_line(session.program)),
        ("taint", "TAINT", lambda: _taint_letters(debugger)),
        ("panic", "PANIC", lambda: _panic(debugger)),
        ("panic_message", "MESSAGE", lambda: _panic_message(debugger)),
        ("pid", "PID", lambda: debugger.task.pid),
        ("command", "COMMAND", lambda: debugger.task.comm),
        ("task", "TASK", lambda: f"{debugger.task.address:#x}"),
        ("kaslr", "KASLR", lambda: f"{place.slide:#x} (from {place.source})"),
        ("phys_base", "PHYS_BASE", lambda: f"{place.phys_base:#x}"),
        ("page_table", "PAGE TABLE", lambda: f"{place.levels} levels"),
        ("orc", "ORC", lambda: f"layout {session.orc_layout.layout.name} ({session.orc_layout.decided_by})"),
        ("build_id", "BUILD-ID", lambda: session.image.build_id),
    )
    return System([_fact(key, label, ask) for key, label, ask in questions if keys is None or key in keys])
