"""How are trace records written as the file that trace-cmd and KernelShark open?

Mirrors trace-cmd.dat.v6(5) of trace-cmd, and kernel/trace/ring_buffer.c for the pages of records: headers as tracefs has
them, the formats of all kinds of records, names of addresses and of tasks, options, and then each CPU's pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

from orcdbg.base.sizes import PAGE

_MAGIC = b"\x17\x08\x44tracing" + b"6\0"
_LITTLE_ENDIAN = b"\0"
_LONG_SIZE = 8
# From include/linux/ring_buffer.h: a record's own length in words fits the first word up to 28 of them.
_MAX_SHORT_WORDS = 28
_TIME_EXTEND = 30
_DELTA_BITS = 27
_LARGEST_DELTA = (1 << _DELTA_BITS + 32) - 1
_PAGE_HEADER = struct.Struct("<QQ")
# What a record costs at most beside its data: its first word and its length, behind a time of two words.
_MOST_BESIDE = 16

# As ring_buffer_print_entry_header() writes it, 5.10 to 7.2.
_EVENT_HEADER = b"""# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
"""

# Options of the file (trace-cmd.dat.v6(5), "OPTIONS").
_OPTION_CPU_STATISTICS, _OPTION_CLOCK, _OPTION_KERNEL = 2, 4, 5
_LAST_OPTION = b"\0\0"


class Stamped(NamedTuple):
    """A record: when by the trace's clock, and its bytes."""

    time: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FormatText:
    """The `format` file of a kind of record, and the subsystem that it belongs to."""

    system: str
    text: str


@dataclass(frozen=True, slots=True)
class TraceContents:
    """What goes into a file.

    Attributes:
        formats: of all kinds of records; those of the subsystem `ftrace` are the tracers' own.
        symbols: lines as in /proc/kallsyms.
        texts: kernel strings by address, which records name by their address alone.
        tasks: names of tasks by pid.
        clock: the trace's clock.
        kernel: what `uname` says.
        statistics: what each CPU's buffer counted, in the lines of tracefs.
        records: of each CPU, by time.
    """

    formats: Sequence[FormatText]
    symbols: Iterable[str]
    texts: Sequence[tuple[int, str]]
    tasks: Sequence[tuple[int, str]]
    clock: str
    kernel: str
    statistics: Sequence[str]
    records: Sequence[Sequence[Stamped]]


def write_trace(file: IO[bytes], contents: TraceContents) -> int:
    """Writes a file, and answers with its size in bytes.

    Args:
        file: empty, and one in which places can be sought.
        contents: what goes into it.
    """
    page_size = page_size_for(contents.records)
    file.write(_MAGIC + _LITTLE_ENDIAN + bytes([_LONG_SIZE]) + struct.pack("<I", page_size))
    file.write(b"header_page\0" + _sized("<Q", _page_header(page_size)))
    file.write(b"header_event\0" + _sized("<Q", _EVENT_HEADER))
    _write_formats(file, contents.formats)
    file.write(_sized("<I", "".join(contents.symbols).encode()))
    file.write(_sized("<I", "".join(_quoted(address, text) for address, text in contents.texts).encode()))
    file.write(_sized("<Q", "".join(f"{pid} {name}\n" for pid, name in contents.tasks).encode()))

    file.write(struct.pack("<I", len(contents.records)))
    file.write(b"options  \0")
    file.write(_option(_OPTION_CLOCK, f"[{contents.clock}]\n".encode()))
    file.write(_option(_OPTION_KERNEL, contents.kernel.encode()))
    for text in contents.statistics:
        file.write(_option(_OPTION_CPU_STATISTICS, text.encode()))
    file.write(_LAST_OPTION)

    file.write(b"flyrecord\0")
    places = file.tell()
    at = places + 16 * len(contents.records)
    sizes = []
    for records in contents.records:
        at = -(-at // page_size) * page_size
        file.seek(at)
        size = sum(file.write(page) for page in pages_of(records, page_size))
        sizes.append((at if size else 0, size))
        at += size
    file.seek(0, 2)
    end = file.tell()
    file.seek(places)
    file.write(b"".join(struct.pack("<QQ", *place) for place in sizes))
    return max(end, file.tell())


def page_size_for(records: Sequence[Sequence[Stamped]]) -> int:
    """Bytes of a page in which each record has room: since 6.8 a kernel's own may be of up to 64 KiB (2808e31ec12e)."""
    longest = max((len(record.data) for of_cpu in records for record in of_cpu), default=0)
    size = PAGE
    while size < longest + _PAGE_HEADER.size + _MOST_BESIDE:
        size *= 2
    return size


def pages_of(records: Sequence[Stamped], page_size: int) -> Iterator[bytes]:
    """The pages of a CPU's records.

    They are made anew, not copied: what is behind a damaged length, or was read before, is in none of them.
    """
    room = page_size - _PAGE_HEADER.size
    body = bytearray()
    start = last = 0

    def page() -> bytes:
        return (_PAGE_HEADER.pack(start, len(body)) + body).ljust(page_size, b"\0")

    for record in records:
        # A clock that goes back, as one of each CPU's own may when it is set, begins a page: no delta is negative.
        delta = record.time - last
        fits = body and 0 <= delta <= _LARGEST_DELTA
        piece = _record(delta, record.data) if fits else b""
        if not fits or len(body) + len(piece) > room:
            if body:
                yield page()
            body = bytearray()
            start = record.time
            piece = _record(0, record.data)
        body += piece
        last = record.time
    if body:
        yield page()


def _record(delta: int, data: bytes) -> bytes:
    """A record, behind a time of its own where the one before is too long ago."""
    head = b""
    if delta >> _DELTA_BITS:
        low, high = delta & (1 << _DELTA_BITS) - 1, delta >> _DELTA_BITS
        head = struct.pack("<II", low << 5 | _TIME_EXTEND, high)
        delta = 0
    data = data.ljust(-(-len(data) // 4) * 4, b"\0")
    words = len(data) // 4
    if 0 < words <= _MAX_SHORT_WORDS:
        return head + struct.pack("<I", delta << 5 | words) + data
    return head + struct.pack("<II", delta << 5, len(data) + 4) + data


def _page_header(page_size: int) -> bytes:
    """As ring_buffer_print_page_header() writes it."""
    room = page_size - _PAGE_HEADER.size
    lines = (
        "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;",
        "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;",
        "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;",
        f"\tfield: char data;\toffset:16;\tsize:{room};\tsigned:1;",
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _write_formats(file: IO[bytes], formats: Sequence[FormatText]) -> None:
    """The tracers' own first, without a name of a subsystem; then those of each subsystem."""
    by_system: dict[str, list[str]] = {}
    for format_ in formats:
        by_system.setdefault(format_.system, []).append(format_.text)
    own = by_system.pop("ftrace", [])

    file.write(struct.pack("<I", len(own)))
    for text in own:
        file.write(_sized("<Q", text.encode()))

    file.write(struct.pack("<I", len(by_system)))
    for system, texts in sorted(by_system.items()):
        file.write(system.encode() + b"\0" + struct.pack("<I", len(texts)))
        for text in texts:
            file.write(_sized("<Q", text.encode()))


def _quoted(address: int, text: str) -> str:
    """A line as in `printk_formats` of tracefs."""
    for character, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ('"', '\\"')):
        text = text.replace(character, escaped)
    return f'0x{address:x} : "{text}"\n'


def _sized(size: str, data: bytes) -> bytes:
    return struct.pack(size, len(data)) + data


def _option(number: int, data: bytes) -> bytes:
    data += b"\0"
    return struct.pack("<HI", number, len(data)) + data
