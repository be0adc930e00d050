"""trace: what ftrace recorded before the machine stopped."""

from __future__ import annotations

import argparse
import collections
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import cpu_list
from orcdbg.commands.trace_file import TraceFile, write_trace_file
from orcdbg.subsystems.ftrace.events import EventTable
from orcdbg.subsystems.ftrace.ring_buffer import BufferCounts, Record
from orcdbg.subsystems.ftrace.traces import (
    GLOBAL,
    Instance,
    Trace,
    TraceRecord,
    find_instance,
    in_words,
    instances,
)

# Each becomes a line: a distribution's buffers, 1.4 MiB a CPU, hold some 30,000.
MAX_RECORDS = 1 << 20
_MAX_INSTANCES = 1 << 12


@dataclass(frozen=True, slots=True)
class TraceFlags:
    """The bits of a record's flags, as far as this kernel names them (enum trace_flag_type)."""

    irqs_off: int
    need_resched: int
    need_resched_lazy: int
    preempt_resched: int
    hardirq: int
    softirq: int
    nmi: int
    bh_off: int


@dataclass(frozen=True, slots=True)
class TraceListing(Result):
    """The records of a trace, by time, and what its buffers counted."""

    instance: str
    tracer: str
    clock: str
    is_in_ns: bool
    flags: TraceFlags
    records: Sequence[TraceRecord]
    counts: Sequence[BufferCounts]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class TraceInstances(Result):
    """The traces there are: name, tracer, and how many records each holds by its own count."""

    instances: Sequence[tuple[str, str, int]]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="INSTANCE", help="which trace (default: global)")
    parser.add_argument("-l", "--list", action="store_true", help="list the traces")
    parser.add_argument("-c", "--cpu", metavar="CPUS", help="only records of these CPUs: 0,2-4")
    parser.add_argument("-n", "--last", type=int, metavar="N", help="only the last N records")
    parser.add_argument("-e", "--event", action="append", metavar="EVENT", help="only this kind, such as sched_*")
    parser.add_argument("-p", "--pid", type=int, action="append", metavar="PID", help="only records of this task")
    parser.add_argument(
        "-t",
        "--trace-dat",
        nargs="?",
        const="trace.dat",
        metavar="FILE",
        help="write a file for trace-cmd instead (default: trace.dat); `trace dump -t FILE`, as crash has it, is the same",
    )


def _flags(debugger: Debugger) -> TraceFlags:
    def bit(*names: str) -> int:
        for name in names:
            found = debugger.session.program.catalog.enumerator(f"TRACE_FLAG_{name}")
            if found is not None:
                return found[1]
        return 0

    return TraceFlags(
        bit("IRQS_OFF"),
        bit("NEED_RESCHED"),
        bit("NEED_RESCHED_LAZY"),
        bit("PREEMPT_RESCHED"),
        bit("HARDIRQ"),
        bit("SOFTIRQ"),
        bit("NMI"),
        bit("BH_OFF"),
    )


def _listed(debugger: Debugger) -> TraceInstances:
    budget = Budget(_MAX_INSTANCES)
    found = []
    for instance in instances(debugger.session.program, budget):
        try:
            trace = _open(debugger, instance)
            found.append((instance.name, instance.tracer, sum(counts.held for counts in trace.counts())))
        except OrcdbgError as error:
            budget.note_error(f"the trace {instance.name}", instance.array.address_ or 0, error)
    return TraceInstances(found, budget.lines())


def _open(debugger: Debugger, instance: Instance) -> Trace:
    return Trace(instance, debugger.session.names, EventTable(debugger.session.program))


def _instance_name(arguments: argparse.Namespace) -> str:
    """The trace's name among the words; crash puts `dump` before `-t`."""
    words = arguments.words
    if arguments.trace_dat is not None and words[:1] == ["dump"]:
        words = words[1:]
    if len(words) > 1:
        raise UsageError(f"trace takes one trace, not {len(words)}", "`trace -l` lists them")
    return words[0] if words else GLOBAL


def _chosen(trace: Trace, raws: Iterator[Record], arguments: argparse.Namespace) -> Iterator[Record]:
    """The records that the options leave, the last ones where that is asked for."""
    patterns = arguments.event or []

    def fits(raw: Record) -> bool:
        if arguments.pid is not None and int.from_bytes(raw.data[4:8], "little") not in arguments.pid:
            return False
        event = trace.event_of(raw)
        names = (event.name, f"{event.system}:{event.name}") if event is not None else ("?",)
        return not patterns or any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)

    wanted = (raw for raw in raws if fits(raw))
    return iter(collections.deque(wanted, maxlen=min(arguments.last or MAX_RECORDS, MAX_RECORDS)))


def _effect(arguments: argparse.Namespace) -> Effect:
    """`-t` writes a file."""
    return Effect.NONE if arguments.trace_dat is None else Effect.WRITES_FILES


@command(
    "trace",
    summary="show what ftrace recorded",
    group="machine",
    effect=_effect,
    arguments=_arguments,
    examples=(
        ("trace -n 40", "the last 40 records of all CPUs"),
        ("trace -c 0 -e sched_switch", "the task switches of CPU 0"),
        ("trace -l", "the traces there are"),
        ("trace -t boot.dat", "a file for trace-cmd and KernelShark"),
    ),
)
def trace(debugger: Debugger, arguments: argparse.Namespace) -> TraceListing | TraceInstances | TraceFile:
    """Answers with the records of a trace."""
    if arguments.last is not None and arguments.last <= 0:
        raise UsageError(f"not a number of records: {arguments.last}", "for example: trace -n 40")
    if arguments.list:
        return _listed(debugger)
    name = _instance_name(arguments)
    limit = debugger.session.linux.cpu_limit()
    cpus = frozenset(cpu_list(arguments.cpu, limit)) if arguments.cpu is not None else None
    budget = Budget(_MAX_INSTANCES)
    events = EventTable(debugger.session.program)
    found = Trace(find_instance(debugger.session.program, name, budget), debugger.session.names, events)
    if arguments.trace_dat is not None:
        chosen = _chosen(found, found.raw_records(cpus), arguments)
        return write_trace_file(debugger, found, events, chosen, arguments.trace_dat)
    clock, is_in_ns = found.clock
    records = list(in_words(found, _chosen(found, found.raw_records(cpus), arguments)))
    counts = [one for one in found.counts() if cpus is None or one.cpu in cpus]
    problems = [*budget.lines(), *found.budget.lines()]
    return TraceListing(
        found.instance.name, found.instance.tracer, clock, is_in_ns, _flags(debugger), records, counts, problems
    )
