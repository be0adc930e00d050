"""A trace.dat: its pages give the records back, and its parts lie where trace-cmd looks for them."""

from __future__ import annotations

import io
import struct

from hypothesis import given
from hypothesis import strategies as st

from orcdbg.commands.trace_file import format_text
from orcdbg.formats.trace_dat import FormatText, Stamped, TraceContents, page_size_for, pages_of, write_trace
from orcdbg.subsystems.ftrace.events import Event, EventField, form_of
from orcdbg.subsystems.ftrace.ring_buffer import parsed_records

WORDS = st.integers(1, 80).map(lambda count: bytes(range(256))[: 4 * count % 256] or bytes(4 * count))
TIMES = st.one_of(st.integers(0, 1 << 20), st.integers(0, (1 << 64) - 1))
RECORDS = st.lists(st.builds(Stamped, TIMES, WORDS), max_size=200)


def read_back(pages: list[bytes]) -> list[Stamped]:
    """The records of pages."""
    found = []
    for page in pages:
        time, commit = struct.unpack_from("<QQ", page)
        found += [Stamped(*each.record[::2]) for each in parsed_records(page[16 : 16 + commit], time, 0)]
    return found


@given(RECORDS)
def test_pages_give_the_records_back(records: list[Stamped]) -> None:
    """However far apart they are, and where time goes back."""
    size = page_size_for([records])
    pages = list(pages_of(records, size))
    assert {len(page) for page in pages} <= {size}
    assert read_back(pages) == records


def test_a_record_longer_than_a_page_makes_pages_larger() -> None:
    """A kernel's pages may be of 64 KiB since 6.8."""
    records = [Stamped(5, bytes(9000)), Stamped(6, b"last")]
    assert page_size_for([records]) == 16384
    assert read_back(list(pages_of(records, 16384))) == records


def test_a_format_is_as_tracefs_has_it() -> None:
    """An array's size stands behind its name; that of a place in the record does not."""

    def field(name: str, declaration: str, offset: int, size: int, *, is_signed: bool = False) -> EventField:
        return EventField(name, declaration, form_of(declaration, size), offset, size, is_signed)

    common = {"common_type": field("common_type", "unsigned short", 0, 2)}
    own = {
        "comm": field("comm", "char[16]", 8, 16),
        "text": field("text", "__data_loc char[]", 24, 4),
        "prio": field("prio", "int", 28, 4, is_signed=True),
    }
    event = Event(316, "sched", "made", '"%d", REC->prio', own)
    assert format_text(event, common) == (
        "name: made\nID: 316\nformat:\n"
        "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n"
        "\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n"
        "\tfield:__data_loc char[] text;\toffset:24;\tsize:4;\tsigned:0;\n"
        "\tfield:int prio;\toffset:28;\tsize:4;\tsigned:1;\n\n"
        'print fmt: "%d", REC->prio\n'
    )


def test_the_parts_of_a_file_are_in_their_order() -> None:
    """The pages of each CPU begin at a multiple of a page, and the file says where."""
    file = io.BytesIO()
    records = [[Stamped(1, b"one.")], [], [Stamped(2, b"two.")]]
    formats = [FormatText("sched", "format of sched"), FormatText("ftrace", "own format")]
    texts, tasks = [(0xFFFFFFFF81000000, 'a "b"\n')], [(1, "init")]
    contents = TraceContents(formats, ["0 T x\n"], texts, tasks, "local", "Linux", ["CPU: 0\n"], records)
    size = write_trace(file, contents)
    data = file.getvalue()

    assert len(data) == size
    assert data.startswith(b"\x17\x08\x44tracing6\0\0\x08" + struct.pack("<I", 4096) + b"header_page\0")
    parts = (
        b"header_event\0",
        b"own format",
        b"sched\0",
        b"0 T x\n",
        b'0xffffffff81000000 : "a \\"b\\"\\n"\n',
        b"1 init\n",
    )
    places = [data.index(part) for part in (*parts, b"options  \0", b"[local]", b"flyrecord\0")]
    assert places == sorted(places)
    fly = data.index(b"flyrecord\0") + 10
    where = [struct.unpack_from("<QQ", data, fly + 16 * cpu) for cpu in range(3)]
    assert [(offset % 4096, length) for offset, length in where] == [(0, 4096), (0, 0), (0, 4096)]
    assert [read_back([data[offset : offset + 4096]]) for offset, length in where if length] == [records[0], records[2]]
