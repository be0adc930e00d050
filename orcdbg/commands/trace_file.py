"""What of a trace goes into a trace.dat: records, and all that trace-cmd needs to print them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_cstring
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.commands.writing import replacing
from orcdbg.formats.trace_dat import FormatText, Stamped, TraceContents, write_trace
from orcdbg.subsystems.ftrace.events import Event, EventField, EventTable, comms
from orcdbg.subsystems.ftrace.ring_buffer import BufferCounts, Record
from orcdbg.subsystems.ftrace.traces import Trace

_LONGEST_TEXT = 4096
# Strings that records name by address: a kernel has some hundred, and each trace_printk() its own.
_MAX_TEXTS = 1 << 16
_POINTER_SIZE = 8
# A line's end would be another line of a format, of a table of symbols or of tasks.
_UNWRITABLE = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class TraceFile(Result):
    """A file that was written.

    Attributes:
        path: of the file.
        instance: which trace.
        size: bytes of the file.
        records: how many of each CPU are in it, by CPU.
        events: how many kinds of records it describes.
        problems: what could not be read.
    """

    path: str
    instance: str
    size: int
    records: Sequence[tuple[int, int]]
    events: int
    problems: Sequence[str]


def write_trace_file(
    debugger: Debugger, trace: Trace, events: EventTable, raws: Iterator[Record], path: str
) -> TraceFile:
    """Writes records of a trace.

    Args:
        debugger: whom it is asked of.
        trace: which trace.
        events: its kinds of records.
        raws: the records, by time.
        path: where to.
    """
    session = debugger.session
    budget = Budget(_MAX_TEXTS)
    by_cpu: list[list[Stamped]] = [[] for _ in range(session.linux.cpu_limit())]
    kept: list[Record] = []
    for raw in raws:
        by_cpu[raw.cpu].append(Stamped(raw.time, raw.data))
        kept.append(raw)

    formats = list(_formats(events, budget))
    contents = TraceContents(
        formats,
        _symbols(debugger, budget),
        _texts(debugger, trace, kept, budget),
        sorted((pid, comm) for pid, comm in comms(session.program).items() if not _UNWRITABLE.search(comm)),
        trace.clock[0],
        _kernel(debugger),
        [_statistics(counts, len(by_cpu[counts.cpu])) for counts in trace.counts()],
        by_cpu,
    )
    with replacing(path, session.files) as file:
        size = write_trace(file, contents)
    counts = [(cpu, len(records)) for cpu, records in enumerate(by_cpu) if records]
    problems = [*budget.lines(), *events.budget.lines(), *trace.budget.lines()]
    return TraceFile(path, trace.instance.name, size, counts, len(formats), problems)


def _kernel(debugger: Debugger) -> str:
    """What `uname` said, as far as that can be read."""
    names = debugger.session.object("struct uts_namespace", debugger.session.linux.address("init_uts_ns")).member_(
        "name"
    )
    try:
        words = [names.member_(each).string_(65) for each in ("sysname", "nodename", "release", "version", "machine")]
    except OrcdbgError:
        return "Linux"
    return " ".join(_UNWRITABLE.sub("?", word) for word in words)


def _formats(events: EventTable, budget: Budget) -> Iterator[FormatText]:
    """The formats of all kinds, those that would break the file's lines left out."""
    for event in events.all():
        parts = [
            event.system,
            event.name,
            *(part for each in event.fields.values() for part in (each.name, each.declaration)),
        ]
        if any(_UNWRITABLE.search(part) for part in parts) or "\0" in event.print_format:
            budget.note_error("a kind of trace record", event.number, OrcdbgError("its name or a field's is no text"))
            continue
        yield FormatText(event.system, format_text(event, events.common))


def format_text(event: Event, common: dict[str, EventField]) -> str:
    """An event's `format` file, as trace_format_open() of kernel/trace/trace_events.c writes it."""
    own = [field for name, field in event.fields.items() if name not in common]
    lines = [f"name: {event.name}", f"ID: {event.number}", "format:"]
    lines += [*map(_field_line, common.values()), "", *map(_field_line, own), ""]
    return "\n".join([*lines, f"print fmt: {event.print_format}", ""])


def _field_line(field: EventField) -> str:
    """A field, an array's size behind its name as C has it."""
    declaration, bracket, size = field.declaration.partition("[")
    if field.form.is_location or not bracket:
        shown = f"{field.declaration} {field.name}"
    else:
        shown = f"{declaration} {field.name}{bracket}{size}"
    return f"\tfield:{shown};\toffset:{field.offset};\tsize:{field.size};\tsigned:{int(field.is_signed)};"


def _statistics(counts: BufferCounts, written: int) -> str:
    """As `per_cpu/cpuN/stats` of tracefs begins; to trace-cmd, entries are those that are not in the file."""
    lines = (
        ("CPU", counts.cpu),
        ("entries", max(counts.held - written, 0)),
        ("overrun", counts.overwritten),
        ("dropped events", counts.dropped),
        ("read events", counts.read),
    )
    return "".join(f"{name}: {number}\n" for name, number in lines)


def _symbols(debugger: Debugger, budget: Budget) -> Iterator[str]:
    """Lines as in /proc/kallsyms."""
    linux = debugger.session.linux
    for symbol in debugger.session.symbols.containing(""):
        yield f"{linux.run_time(symbol):016x} {symbol.letter} {symbol.name}\n"
    names = debugger.session.names
    for module in names.modules:
        symbols = names.module_symbols[module.address]
        try:
            table = symbols.table
        except OrcdbgError as error:
            budget.note_error(f"symbols of module {module.name}", module.address, error)
            continue
        for symbol in table.containing(""):
            name = f"{symbol.name}\t[{module.name}]"
            if module.holds(symbol.address) and not re.search(r"\s", symbol.name + module.name):
                yield f"{symbol.address:016x} {symbols.letter(symbol) or 't'} {name}\n"


def _texts(debugger: Debugger, trace: Trace, raws: Sequence[Record], budget: Budget) -> list[tuple[int, str]]:
    """The kernel's strings that the records' pointers to characters lead to."""
    memory = debugger.session.linux.memory
    found: dict[int, str] = {}
    for raw in raws:
        event = trace.event_of(raw)
        if event is None:
            continue
        for field in _text_pointers(event):
            address = int.from_bytes(raw.data[field.offset : field.offset + _POINTER_SIZE], "little")
            if address in found or not address >> 63 or not budget.take("strings that records name", address):
                continue
            try:
                text = read_cstring(memory, address, _LONGEST_TEXT)
            except MemoryFault:
                continue
            found[address] = text.decode("utf-8", "backslashreplace").replace("\r", "\\r")
    return sorted(found.items())


def _text_pointers(event: Event) -> list[EventField]:
    """The fields that are addresses of strings."""
    return [
        field
        for field in event.fields.values()
        if field.size == _POINTER_SIZE and "char" in field.declaration and "*" in field.declaration
    ]
