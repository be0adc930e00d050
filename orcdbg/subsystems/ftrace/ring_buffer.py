"""Which records are in the ring buffer of one CPU, oldest first, and how many were lost?

Mirrors kernel/trace/ring_buffer.c, 5.10 to 7.2: a ring of pages that a list links, and one page outside of it that belongs
to the reader. Nobody reads them here, and so nothing is consumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import Corrupt, MemoryFault
from orcdbg.base.sizes import PAGE, U64
from orcdbg.base.walks import Budget
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# All pages of all CPUs; 6.8 allows sub-buffers of up to 64 KiB (commit 2808e31ec12e).
MAX_PAGES = 1 << 18
MAX_BYTES = 1 << 30
MAX_SUB_BUFFER = 1 << 16
_LINK_FLAGS = 3  # in the low bits of a link: the page it leads to is the head (1), or is just being moved (2)
_MISSED = 3 << 30  # of a page's commit: whether records were lost before it, and whether their number follows
_TYPE_PADDING, _TYPE_TIME_EXTEND, _TYPE_TIME_STAMP = 29, 30, 31
_TIME_SHIFT = 27
_ABSOLUTE_MSB = 0xF8 << 56


class Record(NamedTuple):
    """A record: when, on which CPU, and its bytes, which begin with `struct trace_entry`."""

    time: int
    cpu: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BufferCounts:
    """What one CPU's buffer counted.

    Attributes:
        cpu: which.
        written: records that were written into it.
        overwritten: those that were overwritten before anybody read them.
        read: those that a reader has consumed.
        dropped: those that found no room.
    """

    cpu: int
    written: int
    overwritten: int
    read: int
    dropped: int

    @property
    def held(self) -> int:
        """How many are in the buffer by its own count."""
        return self.written - self.overwritten - self.read


class CpuBuffer:
    """The buffer of one CPU.

    Args:
        program: the kernel.
        buffer: `struct ring_buffer_per_cpu`.
        cpu: whose.
        page_size: bytes of a page of it, the header included.
    """

    def __init__(self, program: Program, buffer: Object, cpu: int, page_size: int) -> None:
        self._memory = program.memory
        self._buffer = buffer
        self._cpu = cpu
        self._page_size = page_size
        self._data_offset = program.object("struct buffer_data_page", 0).member_("data").address_ or 0

    def counts(self) -> BufferCounts:
        """What it counted."""
        number = {name: self._count(name) for name in ("entries", "overrun", "dropped_events", "read")}
        return BufferCounts(self._cpu, number["entries"], number["overrun"], number["read"], number["dropped_events"])

    def _count(self, name: str) -> int:
        member = self._buffer.member_(name)
        # local_t is {local64_t or atomic_long_t}, whose number is the first word.
        return int.from_bytes(member.bytes_()[:8], "little")

    def records(self, budget: Budget) -> Iterator[Record]:
        """The records, oldest first; what could not be read is among the budget's problems."""
        commit_page = int(self._buffer.member_("commit_page"))
        reader = self._buffer.member_("reader_page")
        for page in self._pages(int(reader), commit_page, budget):
            begin = int(page.member_("read")) if page.address_ == int(reader) else 0
            try:
                yield from self._page_records(page, begin, budget)
            except (Corrupt, MemoryFault) as error:
                budget.note_error(f"the trace of CPU {self._cpu}", page.address_ or 0, error)

    def _pages(self, reader: int, commit_page: int, budget: Budget) -> Iterator[Object]:
        """The reader's page and those from the head to the one that is written to."""
        program = self._buffer.program_
        what = f"pages of the trace of CPU {self._cpu}"
        if reader:
            yield program.object("struct buffer_page", reader)
        if reader == commit_page:
            return
        head = self._head(budget)
        if head is None:
            budget.note_error(what, self._buffer.address_ or 0, Corrupt("no page is the head"))
            return
        offset = program.object("struct buffer_page", 0).member_("list").address_ or 0
        seen: set[int] = set()
        node = head
        while budget.take(what, node):
            if node in seen:
                return  # once around: the page that is written to is not among them
            seen.add(node)
            page = program.object("struct buffer_page", node - offset & U64)
            yield page
            if page.address_ == commit_page:
                return
            try:
                node = int(page.member_("list.next")) & ~_LINK_FLAGS
            except MemoryFault as error:
                budget.note_error(what, node, error)
                return

    def _head(self, budget: Budget) -> int | None:
        """The list node of the oldest page: the link that leads to it says so; None where no link does."""
        program = self._buffer.program_
        node = int(self._buffer.member_("pages")) & ~_LINK_FLAGS
        seen: set[int] = set()
        while node not in seen and budget.take(f"pages of the trace of CPU {self._cpu}", node):
            seen.add(node)
            link = int(program.object("struct list_head", node).member_("next"))
            if link & _LINK_FLAGS:
                return link & ~_LINK_FLAGS
            node = link
        return None

    def _page_records(self, page: Object, begin: int, budget: Budget) -> Iterator[Record]:
        address = int(page.member_("page"))
        header = page.program_.object("struct buffer_data_page", address)
        committed = self._number(header, "commit") & ~_MISSED & 0xFFFFFFFF
        room = self._page_size - self._data_offset
        if committed > room:
            raise Corrupt(f"a page of the trace claims {committed} bytes of {room}")
        data = budget.read(self._memory, address + self._data_offset & U64, committed, "the trace")
        time = self._number(header, "time_stamp")
        for record in parsed_records(data, time, self._cpu):
            if record.offset >= begin:
                yield record.record

    @staticmethod
    def _number(object_: Object, name: str) -> int:
        return int.from_bytes(object_.member_(name).bytes_()[:8], "little")


class _Placed(NamedTuple):
    offset: int
    record: Record


def parsed_records(data: bytes, time: int, cpu: int) -> Iterator[_Placed]:
    """The records of one page; each has the time since the one before, and what a time record says counts for the next.

    Raises:
        Corrupt: a record leaves the page.
    """
    offset = 0
    while offset + 4 <= len(data):
        header = int.from_bytes(data[offset : offset + 4], "little")
        kind, delta = header & 31, header >> 5
        first = int.from_bytes(data[offset + 4 : offset + 8], "little")
        if kind == _TYPE_PADDING:
            if not delta:
                return  # the rest of the page is empty
            time += delta
            size = first + 4
        elif kind == _TYPE_TIME_EXTEND:
            time += (first << _TIME_SHIFT) + delta
            size = 8
        elif kind == _TYPE_TIME_STAMP:
            time = (first << _TIME_SHIFT) + delta | time & _ABSOLUTE_MSB
            size = 8
        else:
            time += delta
            begin, size = (offset + 4, 4 + 4 * kind) if kind else (offset + 8, 4 + first)
            if offset + size > len(data) or size < begin - offset:
                raise Corrupt(f"a record of {size} bytes at {offset:#x} of a page with {len(data)}")
            yield _Placed(offset, Record(time & U64, cpu, data[begin : offset + size]))
        if size < 4:
            raise Corrupt(f"a record of {size} bytes at {offset:#x}")
        offset += -(-size // 4) * 4


def cpu_buffers(array_buffer: Object) -> Iterator[CpuBuffer]:
    """The buffers of all CPUs of a `struct array_buffer`.

    Raises:
        Corrupt: the buffer's own numbers are no buffer's.
    """
    program = array_buffer.program_
    buffer = array_buffer.member_("buffer")
    if not int(buffer):
        return
    order = buffer.first_of_("subbuf_order")
    page_size = PAGE << (int(order) if order is not None else 0)
    if not PAGE <= page_size <= MAX_SUB_BUFFER:
        raise Corrupt(f"pages of the trace of {page_size} bytes")
    buffers = buffer.member_("buffers")
    for cpu in range(program.linux.cpu_limit()):
        of_cpu = buffers[cpu]
        if int(of_cpu):
            yield CpuBuffer(program, of_cpu.deref_(), cpu, page_size)
