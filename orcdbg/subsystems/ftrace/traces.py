"""Which traces does the kernel hold, and how do their records read?

Mirrors kernel/trace/trace_output.c for the records of the tracers themselves; those of events read as their `print fmt` says.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from orcdbg.base.errors import Corrupt, MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64, signed
from orcdbg.base.walks import Budget
from orcdbg.kernel.names import Names
from orcdbg.subsystems.ftrace.binary_print import decode_binary
from orcdbg.subsystems.ftrace.events import Event, EventField, EventTable, FieldForm, comms
from orcdbg.subsystems.ftrace.print_formats import (
    Environment,
    NotUnderstood,
    PrintFormat,
    Value,
    parse,
    printf,
    write,
)
from orcdbg.subsystems.ftrace.ring_buffer import (
    MAX_BYTES,
    MAX_PAGES,
    BufferCounts,
    Record,
    cpu_buffers,
)
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

GLOBAL = "global"
_U64 = (1 << 64) - 1
_VARIABLES = ("vmemmap_base", "page_offset_base")  # that formats of events name
_MAX_INSTANCES = 1 << 10
_LONGEST_TEXT = 4096
_MAX_CALLERS = 128
_ENTRY_SIZE = 8


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """A record in words.

    Attributes:
        time: by the trace's clock, in ns where that counts ns.
        cpu: which CPU wrote it.
        pid: which task ran.
        comm: that task's name as tracing kept it, None where it did not.
        flags: the bits of `struct trace_entry`: interrupts off and so on.
        preempt_count: likewise.
        event: the kind's name.
        system: the subsystem of the kind, `ftrace` for the tracers' own.
        text: what it says; not safe for a terminal.
        is_parsed: false where `text` is the fields alone, since the kind's print format is not understood.
    """

    time: int
    cpu: int
    pid: int
    comm: str | None
    flags: int
    preempt_count: int
    event: str
    system: str
    text: str
    is_parsed: bool = True


@dataclass(frozen=True, slots=True)
class Instance:
    """A trace: the global one, or one that was made below `instances` of tracefs."""

    name: str
    array: Object

    @property
    def tracer(self) -> str:
        """The name of its tracer."""
        return self.array.member_("current_trace").member_("name").string_(64)


def instances(program: Program, budget: Budget) -> list[Instance]:
    """All traces, the global one first.

    Raises:
        NotFound: the kernel does not trace.
    """
    head = program.linux.address("ftrace_trace_arrays")
    found = []
    for address in program.linux.walk_list(head, "trace_array", "list", budget):
        array = program.object("struct trace_array", address)
        name = array.member_("name")
        found.append(Instance(name.string_(128) if int(name) else GLOBAL, array))
    return sorted(found, key=lambda instance: instance.name != GLOBAL)


class Trace:
    """The records of one trace.

    Args:
        instance: which.
        names: of addresses.
        events: the kinds of records.

    Attributes:
        budget: what reading it draws on; its problems say what is missing.
    """

    def __init__(self, instance: Instance, names: Names, events: EventTable) -> None:
        self.instance = instance
        self.budget = Budget(MAX_PAGES, MAX_BYTES)
        self._program = instance.array.program_
        self._names = names
        self._events = events
        self._formats: dict[int, PrintFormat | None] = {}
        self._constants: dict[str, int] = {}

    @functools.cached_property
    def _comms(self) -> Mapping[int, str]:
        return comms(self._program)

    @functools.cached_property
    def _buffers(self) -> Sequence[Object]:
        return [self.instance.array.member_("array_buffer")]

    @functools.cached_property
    def clock(self) -> tuple[str, bool]:
        """The clock's name, and whether it counts nanoseconds."""
        number = int(self.instance.array.member_("clock_id"))
        clocks = self._program.linux.address("trace_clocks")
        if not 0 <= number < 64:
            raise Corrupt(f"trace clock {number}")
        # An anonymous structure of a function, a name, and whether it is in ns (kernel/trace/trace.c, trace_clocks[]).
        data = self._program.memory.read(clocks + 24 * number, 24)
        name = read_cstring(self._program.memory, int.from_bytes(data[8:16], "little"), 32)
        return name.decode("utf-8", "backslashreplace"), bool(int.from_bytes(data[16:20], "little"))

    def counts(self) -> list[BufferCounts]:
        """What each CPU's buffer counted; those that never held a record are left out."""
        found = []
        for buffer in self._buffers:
            for one in cpu_buffers(buffer):
                try:
                    counts = one.counts()
                except OrcdbgError as error:
                    self.budget.note_error("the counts of a trace", 0, error)
                    continue
                if counts.written or counts.dropped:
                    found.append(counts)
        return found

    def raw_records(self, cpus: frozenset[int] | None = None) -> Iterator[Record]:
        """The records of all CPUs, or of some, by time; of one time in the order of the CPUs."""
        streams = []
        for buffer in self._buffers:
            for number, one in enumerate(cpu_buffers(buffer)):
                if cpus is None or number in cpus:
                    streams.append(one.records(self.budget))
        yield from heapq.merge(*streams, key=attrgetter("time"))

    def record(self, raw: Record, leaf_time: int | None = None) -> TraceRecord:
        """A record in words.

        Args:
            raw: the record.
            leaf_time: of a function_graph entry, how long it took where nothing was recorded before its return.
        """
        data = raw.data
        if len(data) < _ENTRY_SIZE:
            raise Corrupt(f"a record of {len(data)} bytes")
        number = int.from_bytes(data[:2], "little")
        pid = signed(int.from_bytes(data[4:8], "little"), 32)
        event = self._events.find(number)
        name, system = (event.name, event.system) if event is not None else (f"type {number}", "?")
        text, is_parsed = self._text(event, data, leaf_time)
        comm = "<idle>" if pid == 0 else self._comms.get(pid)
        return TraceRecord(raw.time, raw.cpu, pid, comm, data[2], data[3], name, system, text, is_parsed)

    def number_of(self, raw: Record) -> int:
        """The number of a record's kind."""
        return int.from_bytes(raw.data[:2], "little")

    def event_of(self, raw: Record) -> Event | None:
        """A record's kind."""
        return self._events.find(self.number_of(raw))

    # Words

    def symbol(self, address: int, with_offset: bool = False) -> str:
        """An address as traces name it."""
        location = self._names.at(address)
        if location is None:
            return f"{address:#x}"
        module = f" [{location.module}]" if location.module else ""
        offset = f"+{address - location.start:#x}/{location.size:#x}" if with_offset else ""
        return f"{location.symbol}{offset}{module}"

    def _text(self, event: Event | None, data: bytes, leaf_time: int | None) -> tuple[str, bool]:
        if event is None:
            return data[_ENTRY_SIZE:].hex(" "), False
        reader = _Fields(event, data)
        try:
            if event.system == "syscalls":
                return self._syscall_text(event, reader), True
            if event.system == "ftrace":
                own = self._own_text(event, reader, leaf_time)
                if own is not None:
                    return own, True
            return self._formatted(event, reader), True
        except (NotUnderstood, OrcdbgError, KeyError, RecursionError):
            return reader.all_in_words(), False

    def _formatted(self, event: Event, reader: _Fields) -> str:
        if event.number not in self._formats:
            try:
                self._formats[event.number] = parse(event.print_format)
            except NotUnderstood:
                self._formats[event.number] = None
        format_ = self._formats[event.number]
        if format_ is None:
            raise NotUnderstood(event.print_format[:20])
        if "__probe_ip" in event.fields or "__probe_func" in event.fields:
            return self._probe_text(format_, reader)
        return write(format_, self._environment(reader))

    def _environment(self, reader: _Fields) -> Environment:
        return Environment(reader.value, reader.offset_of, self.symbol, reader.array, self._constant, self._size_of)

    def _constant(self, name: str) -> int:
        if name not in self._constants:
            self._constants[name] = self._find_constant(name)
        return self._constants[name]

    def _find_constant(self, name: str) -> int:
        enumerator = self._program.catalog.enumerator(name)
        if enumerator is not None:
            return enumerator[1]
        address = self._program.linux.find_address(name) if name in _VARIABLES else None
        if address is None:
            raise NotUnderstood(name)
        return read_u64(self._program.memory, address)

    def _size_of(self, name: str) -> int:
        return 1 if name == "void" else self._program.type(name).size

    def _probe_text(self, format_: PrintFormat, reader: _Fields) -> str:
        """Records of kprobes: their format has addresses where the kernel itself prints names."""
        head, _, _ = format_.text.partition(")")
        rest = PrintFormat(format_.text[len(head) + 1 :], format_.arguments[head.count("%") :])
        if "__probe_ip" in reader.event.fields:
            place = self.symbol(reader.number("__probe_ip"), True)
        else:
            place = (
                f"{self.symbol(reader.number('__probe_ret_ip'), True)} <- {self.symbol(reader.number('__probe_func'))}"
            )
        return f"({place}){write(rest, self._environment(reader))}"

    def _own_text(self, event: Event, reader: _Fields, leaf_time: int | None) -> str | None:
        """Records of the tracers themselves; None for a kind that has a format like all others."""
        name = event.name
        if name == "function":
            return f"{self.symbol(reader.number('ip'))} <-{self.symbol(reader.number('parent_ip'))}"
        if name in ("funcgraph_entry", "funcgraph_retaddr_entry"):
            indent = "  " * min(max(reader.number("depth"), 0), 64)
            function = self.symbol(reader.number("func"))
            if leaf_time is not None:
                return f"{_duration(leaf_time)} |  {indent}{function}();"
            return f"{'':>14} |  {indent}{function}() {{"
        if name == "funcgraph_exit":
            indent = "  " * min(max(reader.number("depth"), 0), 64)
            return f"{_duration(reader.number('rettime') - reader.number('calltime'))} |  {indent}}}"
        if name in ("bprint", "bputs", "print"):
            return f"{self.symbol(reader.number('ip'))}: {self._printed(name, reader)}"
        if name in ("kernel_stack", "user_stack"):
            return self._stack(reader)
        return None

    def _syscall_text(self, event: Event, reader: _Fields) -> str:
        """As print_syscall_enter() and print_syscall_exit()."""
        name = event.name.removeprefix("sys_enter_").removeprefix("sys_exit_")
        if event.name.startswith("sys_exit_"):
            return f"sys_{name} -> {reader.number('ret') & _U64:#x}"
        if "__get_" in event.print_format or "__print_" in event.print_format:
            # Since 6.18 formats of some calls have the strings that user space gave, and flags by their names.
            return f"sys_{name}({self._formatted(event, reader)})"
        arguments = [field for field in event.fields if field not in (*self._events.common, "__syscall_nr", "nr")]
        shown = [f"{field}: {reader.number(field) & _U64:x}" for field in arguments if not field.startswith("__")]
        return f"sys_{name}({', '.join(shown)})"

    def _printed(self, name: str, reader: _Fields) -> str:
        if name == "print":
            return reader.tail("buf").split(b"\0", 1)[0].decode("utf-8", "backslashreplace").rstrip("\n")
        place = reader.number("fmt" if name == "bprint" else "str")
        text = read_cstring(self._program.memory, place, _LONGEST_TEXT).decode("utf-8", "backslashreplace")
        if name == "bputs":
            return text.rstrip("\n")
        return printf(text, decode_binary(text, reader.tail("buf")), self.symbol).rstrip("\n")

    def _stack(self, reader: _Fields) -> str:
        data = reader.tail("caller")
        callers = [int.from_bytes(data[i : i + 8], "little") for i in range(0, min(len(data), 8 * _MAX_CALLERS), 8)]
        callers = [address for address in callers if address and address != (1 << 64) - 1]
        return "".join(["<stack trace>", *(f"\n => {self.symbol(address)}" for address in callers)])


def _duration(nanoseconds: int) -> str:
    """As function_graph writes a duration, its mark of long ones in front."""
    mark = next((mark for least, mark in _MARKS if nanoseconds > least), " ")
    return f"{mark} {nanoseconds // 1000:>4}.{nanoseconds % 1000:03} us"


_MARKS = ((1_000_000_000, "$"), (100_000_000, "@"), (10_000_000, "*"), (1_000_000, "#"), (100_000, "!"), (10_000, "+"))


class _Fields:
    """The fields of one record."""

    def __init__(self, event: Event, data: bytes) -> None:
        self.event = event
        self._data = data

    def _field(self, name: str) -> EventField:
        found = self.event.fields.get(name) or self.event.fields.get(name.rpartition(".")[2])
        if found is None:
            raise NotUnderstood(f"no field {name}")
        return found

    def offset_of(self, name: str) -> int:
        return self._field(name).offset

    def number(self, name: str) -> int:
        """A number, as its field's sign and size say."""
        field = self._field(name)
        data = self._data[field.offset : field.offset + field.size]
        if len(data) != field.size or not 0 < field.size <= 8:
            raise NotUnderstood(f"{name}: {field.size} bytes")
        value = int.from_bytes(data, "little")
        return signed(value, 8 * field.size) if field.is_signed else value

    def tail(self, name: str) -> bytes:
        """What is from a field to the record's end: an array without a length."""
        return self._data[self._field(name).offset :]

    def array(self, name: str, is_relative: bool) -> bytes:
        """The bytes that a `__data_loc` field leads to; of a `__rel_loc` one, from behind itself on."""
        field = self._field(name)
        value = int.from_bytes(self._data[field.offset : field.offset + 4], "little")
        begin, size = value & 0xFFFF, value >> 16
        if is_relative or field.form.is_relative:
            begin += field.offset + field.size
        if begin + size > len(self._data):
            raise NotUnderstood(f"{name} leaves the record")
        return self._data[begin : begin + size]

    def value(self, name: str) -> Value:
        """A field as expressions take it: a number, or the bytes of an array."""
        field = self._field(name)
        if field.form.is_location:
            return self.array(name, False)
        if field.form is not FieldForm.NUMBER:
            return self._data[field.offset : field.offset + field.size]
        return self.number(name)

    def all_in_words(self) -> str:
        """Name and value of each field, for a kind whose format is not understood."""
        shown = []
        for name in self.event.fields:
            try:
                value = self.value(name)
            except NotUnderstood:
                continue
            if isinstance(value, bytes):
                text = value.split(b"\0", 1)[0]
                is_text = self.event.fields[name].form.is_text
                shown.append(f"{name}={text.decode('utf-8', 'backslashreplace') if is_text else value[:64].hex()}")
            else:
                shown.append(f"{name}={value:#x}" if isinstance(value, int) and value > 9 else f"{name}={value}")
        return " ".join(shown)


def in_words(trace: Trace, raws: Iterator[Record]) -> Iterator[TraceRecord]:
    """Records in words; a function's return that directly follows its call on the same CPU joins that."""
    waiting: dict[int, list[Record]] = {}
    order: list[Record] = []
    merged: dict[int, int] = {}
    dropped: set[int] = set()
    for raw in raws:
        order.append(raw)
        event = trace.event_of(raw)
        last = waiting.get(raw.cpu)
        if event is not None and event.name == "funcgraph_exit" and last:
            entry = trace.event_of(last[0])
            if entry is not None and entry.name.startswith("funcgraph") and entry.name.endswith("entry"):
                taken = _leaf_time(_Fields(entry, last[0].data), _Fields(event, raw.data))
                if taken is not None:
                    merged[id(last[0])] = taken
                    dropped.add(id(raw))
        waiting[raw.cpu] = [raw]
    for raw in order:
        if id(raw) in dropped:
            continue
        try:
            yield trace.record(raw, merged.get(id(raw)))
        except (Corrupt, MemoryFault) as error:
            trace.budget.note_error("a trace record", 0, error)


def _leaf_time(entry: _Fields, leave: _Fields) -> int | None:
    try:
        if entry.number("func") != leave.number("func") or entry.number("depth") != leave.number("depth"):
            return None
        return leave.number("rettime") - leave.number("calltime")
    except NotUnderstood:
        return None


def find_instance(program: Program, name: str, budget: Budget) -> Instance:
    """The trace of that name; NotFound where there is none."""
    found = instances(program, budget)
    for instance in found:
        if instance.name == name:
            return instance
    why = "; ".join(budget.lines()) or "traces: " + ", ".join(instance.name for instance in found)
    raise NotFound("trace", name, why)
