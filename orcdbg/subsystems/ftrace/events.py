"""Which kinds of records does the kernel know, and what are the fields of each?

Mirrors kernel/trace/trace_events.c: each kind has a number, and a list of fields with the C type, the place and the size
of each, from which the kernel makes the `format` files of tracefs.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_cstring
from orcdbg.base.walks import Budget
from orcdbg.subsystems.kernel_variables import variable
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# A distribution's kernel has some 2,500 events with 8 fields each; probes add their own.
MAX_EVENTS = 1 << 18
_LONGEST_FORMAT = 64 << 10


class FieldForm(enum.Enum):
    """How a field's bytes are to be read."""

    NUMBER = enum.auto()
    ARRAY = enum.auto()
    TEXT = enum.auto()
    """An array of characters."""
    DATA_LOCATION = enum.auto()
    """A place in the record and a length, of an array that lies there."""
    TEXT_LOCATION = enum.auto()
    RELATIVE_LOCATION = enum.auto()
    """The same, the place counted from behind the field."""
    RELATIVE_TEXT_LOCATION = enum.auto()

    @property
    def is_location(self) -> bool:
        """Whether the array lies elsewhere."""
        return self not in (FieldForm.NUMBER, FieldForm.ARRAY, FieldForm.TEXT)

    @property
    def is_relative(self) -> bool:
        """Whether the place counts from behind the field."""
        return self in (FieldForm.RELATIVE_LOCATION, FieldForm.RELATIVE_TEXT_LOCATION)

    @property
    def is_text(self) -> bool:
        """Whether it is of characters."""
        return self in (FieldForm.TEXT, FieldForm.TEXT_LOCATION, FieldForm.RELATIVE_TEXT_LOCATION)


def form_of(declaration: str, size: int) -> FieldForm:
    """The form of a field by its C type, as the kernel's `format` files have it."""
    is_text = "char" in declaration
    if declaration.startswith("__rel_loc"):
        return FieldForm.RELATIVE_TEXT_LOCATION if is_text else FieldForm.RELATIVE_LOCATION
    if declaration.startswith("__data_loc"):
        return FieldForm.TEXT_LOCATION if is_text else FieldForm.DATA_LOCATION
    if "[" in declaration or size > 8:
        return FieldForm.TEXT if is_text else FieldForm.ARRAY
    return FieldForm.NUMBER


@dataclass(frozen=True, slots=True)
class EventField:
    """A field: bytes `offset` to `offset + size` of a record; `declaration` is its type as in C."""

    name: str
    declaration: str
    form: FieldForm
    offset: int
    size: int
    is_signed: bool


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of record: `print_format` is the C text that says how it is printed, arguments and all."""

    number: int
    system: str
    name: str
    print_format: str
    fields: Mapping[str, EventField] = field(default_factory=dict)


class EventTable:
    """The kinds of records by number.

    Args:
        program: the kernel.

    Raises:
        NotFound: the kernel has no events.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._linux = program.linux
        self.budget = Budget(MAX_EVENTS)
        found = program.catalog.enumerator("TRACE_EVENT_FL_TRACEPOINT_BIT")
        if found is None:
            raise NotFound("enumerator", "TRACE_EVENT_FL_TRACEPOINT_BIT")
        self._tracepoint_flag = 1 << (found[1] & 63)
        self._fields_of_class: dict[int, dict[str, EventField]] = {}
        self._calls: dict[int, int] = {}
        self._events: dict[int, Event | None] = {}
        type_offset = program.object("struct trace_event_call", 0).member_("event.type").address_ or 0
        head = self._linux.address("ftrace_events")
        for address in self._linux.walk_list(head, "trace_event_call", "list", self.budget):
            try:
                number = int.from_bytes(self._linux.memory.read(address + type_offset, 4), "little")
            except MemoryFault as error:
                self.budget.note_error("a kind of trace record", address, error)
                continue
            self._calls.setdefault(number, address)

    def find(self, number: int) -> Event | None:
        """The kind of that number, None where the kernel has none, or it cannot be read."""
        if number not in self._events:
            self._events[number] = self._read(number)
        return self._events[number]

    def _read(self, number: int) -> Event | None:
        address = self._calls.get(number)
        if address is None:
            return None
        try:
            return self._event(self._program.object("struct trace_event_call", address))
        except OrcdbgError as error:
            self.budget.note_error("a kind of trace record", address, error)
            return None

    def all(self) -> list[Event]:
        """All kinds that can be read, by number."""
        return [event for number in sorted(self._calls) if (event := self.find(number)) is not None]

    @functools.cached_property
    def common(self) -> dict[str, EventField]:
        """The fields that every record begins with."""
        return self._fields_at(self._linux.address("ftrace_common_fields"))

    def _event(self, call: Object) -> Event:
        class_ = call.member_("class")
        # The name is the tracepoint's where the flag says so, else the call's own: both share their place.
        shared = call.member_("name")
        flags = int(call.member_("flags"))
        pointer = call.member_("tp").member_("name") if flags & self._tracepoint_flag else shared
        format_ = int(call.member_("print_fmt"))
        return Event(
            int(call.member_("event.type")),
            self._text(int(class_.member_("system")), 128),
            self._text(int(pointer), 128),
            self._text(format_, _LONGEST_FORMAT) if format_ else "",
            self._fields(call, class_),
        )

    def _text(self, address: int, limit: int) -> str:
        return read_cstring(self._linux.memory, address, limit).decode("utf-8", "backslashreplace")

    def _fields(self, call: Object, class_: Object) -> dict[str, EventField]:
        get_fields = int(class_.member_("get_fields"))
        place = class_.member_("fields").address_ or 0
        if get_fields and get_fields == self._linux.find_address("syscall_get_enter_fields"):
            metadata = self._program.object("struct syscall_metadata", int(call.member_("data")))
            place = metadata.member_("enter_fields").address_ or 0
        if place not in self._fields_of_class:
            self._fields_of_class[place] = self._fields_at(place)
        return self._fields_of_class[place]

    def _fields_at(self, head: int) -> dict[str, EventField]:
        """The fields of a list by name; the kernel's newest comes first in it."""
        found: dict[str, EventField] = {}
        for address in self._linux.walk_list(head, "ftrace_event_field", "link", self.budget):
            one = self._program.object("struct ftrace_event_field", address)
            try:
                name = self._text(int(one.member_("name")), 128)
                type_ = self._text(int(one.member_("type")), 256)
            except MemoryFault as error:
                self.budget.note_error("a field of a trace record", address, error)
                continue
            numbers = (int(one.member_(path)) for path in ("offset", "size", "is_signed"))
            offset, size, is_signed = numbers
            found[name] = EventField(name, type_, form_of(type_, size), offset, size, bool(is_signed))
        return dict(sorted(found.items(), key=lambda pair: pair[1].offset))


def comms(program: Program) -> dict[int, str]:
    """The names of tasks by pid as tracing kept them while it recorded: `saved_cmdlines` of tracefs."""
    try:
        saved = program.object("struct saved_cmdlines_buffer", int(variable(program, "savedcmd", "void *")))
        count = int(saved.member_("cmdline_num"))
        texts = saved.member_("saved_cmdlines")
        place = texts.address_ if texts.size_ == 0 else int(texts)
        if not 0 < count <= 1 << 20:
            return {}
        pids = program.memory.read(int(saved.member_("map_cmdline_to_pid")), 4 * count)
        data = program.memory.read(place or 0, 16 * count)
    except (NotFound, MemoryFault):
        return {}
    found: dict[int, str] = {}
    for index in range(count):
        pid = int.from_bytes(pids[4 * index : 4 * index + 4], "little")
        text = data[16 * index : 16 * index + 16].split(b"\0", 1)[0]
        if pid not in (0, 0xFFFFFFFF) and text:
            found[pid] = text.decode("utf-8", "backslashreplace")
    return found
