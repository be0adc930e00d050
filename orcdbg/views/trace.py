"""How do the records of a trace look? In the columns of tracefs's own `trace`."""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.trace import TraceFlags, TraceInstances, TraceListing
from orcdbg.subsystems.ftrace.traces import TraceRecord
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.view import Json, Width, view

# Kinds whose name the kernel does not print in front of what they say.
_WITHOUT_NAME = ("function", "bprint", "bputs", "print", "kernel_stack", "user_stack")


def _lines(result: TraceListing, width: Width) -> Iterator[Line]:
    yield line((f"# trace: {result.instance}, tracer: {result.tracer}, clock: {result.clock}", "label"))
    for counts in result.counts:
        lost = f", {counts.overwritten} overwritten" if counts.overwritten else ""
        lost += f", {counts.dropped} dropped" if counts.dropped else ""
        read = f", {counts.read} read" if counts.read else ""
        yield line((f"# CPU {counts.cpu}: {counts.held} of {counts.written} records{lost}{read}", "label"))
    for record in result.records:
        yield from _record_lines(record, result)
    yield from problem_lines(result.problems)


def _record_lines(record: TraceRecord, result: TraceListing) -> Iterator[Line]:
    who = f"{record.comm or '<...>':>16}-{record.pid:<7}"
    has_name = record.event not in _WITHOUT_NAME and (record.system != "syscalls" or not record.is_parsed)
    name = f"{record.event}: " if has_name else ""
    first, *rest = record.text.split("\n")
    yield line(
        f"{who} [{record.cpu:03}] {flag_letters(record, result.flags)} ",
        (f"{_time(record.time, result.is_in_ns)}: ", "label"),
        (name, "symbol"),
        first,
        ("" if record.is_parsed else "   (fields only: its print format is not understood)", "note"),
    )
    yield from (line(text) for text in rest)


def _time(time: int, is_in_ns: bool) -> str:
    if not is_in_ns:
        return f"{time:>12}"
    microseconds = (time + 500) // 1000  # as the kernel rounds
    return f"{microseconds // 1_000_000:>5}.{microseconds % 1_000_000:06}"


def flag_letters(record: TraceRecord, flags: TraceFlags) -> str:
    """The five letters of trace_print_lat_fmt(): interrupts off, rescheduling, in an interrupt, preemption, migration."""

    def has(bit: int) -> bool:
        return bool(bit and record.flags & bit)

    irqs = (
        "D"
        if has(flags.irqs_off) and has(flags.bh_off)
        else "d"
        if has(flags.irqs_off)
        else "b"
        if has(flags.bh_off)
        else "."
    )
    wanted = (has(flags.need_resched), has(flags.preempt_resched), has(flags.need_resched_lazy))
    resched = {
        (True, True, True): "B",
        (True, True, False): "N",
        (False, True, True): "L",
        (True, False, True): "b",
        (True, False, False): "n",
        (False, True, False): "p",
        (False, False, True): "l",
    }.get(wanted, ".")
    where = _where(has(flags.nmi), has(flags.hardirq), has(flags.softirq))
    counts = (record.preempt_count & 15, record.preempt_count >> 4)
    return irqs + resched + where + "".join(f"{count:x}" if count else "." for count in counts)


def _where(nmi: bool, hardirq: bool, softirq: bool) -> str:
    if nmi:
        return "Z" if hardirq else "z"
    if hardirq:
        return "H" if softirq else "h"
    return "s" if softirq else "."


def _json(result: TraceListing) -> Json:
    return {
        "instance": result.instance,
        "tracer": result.tracer,
        "clock": result.clock,
        "nanoseconds": result.is_in_ns,
        "counts": [
            {
                "cpu": counts.cpu,
                "held": counts.held,
                "written": counts.written,
                "overwritten": counts.overwritten,
                "read": counts.read,
                "dropped": counts.dropped,
            }
            for counts in result.counts
        ],
        "records": [_record_json(record, result.flags) for record in result.records],
        "problems": list(result.problems),
    }


def _record_json(record: TraceRecord, flags: TraceFlags) -> Json:
    return {
        "time": record.time,
        "cpu": record.cpu,
        "pid": record.pid,
        "comm": record.comm,
        "flags": flag_letters(record, flags),
        "system": record.system,
        "event": record.event,
        "text": record.text,
        "parsed": record.is_parsed,
    }


def _instances_lines(result: TraceInstances, width: Width) -> Iterator[Line]:
    yield line((f"{'TRACE':<24} {'TRACER':<16} {'RECORDS':>10}", "label"))
    for name, tracer, held in result.instances:
        yield line((f"{name:<24}", "symbol"), f" {tracer:<16} {held:>10}")
    yield from problem_lines(result.problems)


def _instances_json(result: TraceInstances) -> Json:
    found = [{"name": name, "tracer": tracer, "records": held} for name, tracer, held in result.instances]
    return {"traces": found, "problems": list(result.problems)}


view(TraceListing, text=_lines, json=_json)
view(TraceInstances, text=_instances_lines, json=_instances_json)
