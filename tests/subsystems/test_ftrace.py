"""Trace records out of made bytes: pages of a ring buffer, print formats, arguments of trace_printk()."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import Corrupt
from orcdbg.subsystems.ftrace.binary_print import decode_binary
from orcdbg.subsystems.ftrace.events import FieldForm, form_of
from orcdbg.subsystems.ftrace.print_formats import Environment, NotUnderstood, Value, parse, printf, write
from orcdbg.subsystems.ftrace.ring_buffer import parsed_records


def header(kind: int, delta: int) -> bytes:
    """A record's first word."""
    return struct.pack("<I", delta << 5 | kind)


def test_records_of_a_page_have_their_times() -> None:
    """Short ones, long ones, time that is extended or absolute, a discarded record, and the empty rest of the page."""
    page = header(2, 5) + b"shortone"
    page += header(30, 7) + struct.pack("<I", 1)  # 2^27 + 7 later
    page += header(0, 1) + struct.pack("<I", 4 + 12) + b"longer words"
    page += header(29, 100) + struct.pack("<I", 8) + b"gone"
    page += header(31, 3) + struct.pack("<I", 2)  # at 2 * 2^27 + 3, the highest bits as before
    page += header(1, 4) + b"last"
    page += header(29, 0) + b"\xff" * 8
    start = (0xA8 << 56) + 1000
    found = list(parsed_records(page, start, 3))
    second = start + 5 + (1 << 27) + 7 + 1
    assert [(one.record.time, one.record.data) for one in found] == [
        (start + 5, b"shortone"),
        (second, b"longer words"),
        ((0xA8 << 56) + (2 << 27) + 3 + 4, b"last"),
    ]
    assert {one.record.cpu for one in found} == {3}


@given(st.binary(max_size=400), st.integers(0, (1 << 64) - 1))
def test_any_bytes_are_records_or_refused(data: bytes, time: int) -> None:
    """No record is longer than what is there, and times stay numbers of 64 bits."""
    try:
        found = list(parsed_records(data, time, 0))
    except Corrupt:
        return
    assert sum(len(one.record.data) for one in found) <= len(data)
    assert all(0 <= one.record.time < 1 << 64 for one in found)


FIELDS: dict[str, Value] = {
    "pid": 12,
    "state": 2,
    "comm": b"init\0\0\0",
    "gfp": 0xCC0,
    "ret": -2,
    "addr": 0xFFFFFFFF81000000,
}


def environment() -> Environment:
    """A record with `FIELDS`, and one symbol."""

    def field(name: str) -> Value:
        if name not in FIELDS:
            raise NotUnderstood(name)
        return FIELDS[name]

    def constant(name: str) -> int:
        if name != "MODE_ABS":
            raise NotUnderstood(name)
        return 0

    return Environment(
        field,
        lambda name: 8,
        lambda address, offset: f"symbol+{0:#x}" if offset else "symbol",
        lambda name, relative: b"a path\0",
        constant,
        lambda name: 64,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"comm=%s pid=%d", REC->comm, REC->pid', "comm=init pid=12"),
        ('"%s", REC->state & 0x3 ? __print_flags(REC->state & 0x3, "|", {0x1, "S"}, {0x2, "D"}) : "R"', "D"),
        ('"%s", __print_flags(REC->gfp, "|", {0xcc0, "GFP_KERNEL"}, {0x400, "IO"})', "GFP_KERNEL"),
        ('"%s", __print_flags(REC->gfp | 0x1000, "|", {0xcc0, "GFP_KERNEL"})', "GFP_KERNEL|0x1000"),
        ('"%s", __print_flags(0, "|", {0x0, "NONE"})', ""),
        ('"%s", __print_symbolic(REC->state, { 1, "one" }, { 2, "two" })', "two"),
        ('"%s", __print_symbolic(REC->pid, { 1, "one" })', "0xc"),
        ('"%s", __print_symbolic(MODE_ABS, { MODE_ABS, "ABS" })', "ABS"),
        ('"%ps %pS", (void *)REC->addr, REC->addr', "symbol symbol+0x0"),
        ('"page=%p", (((struct page *)0x1000) + (REC->pid))', "page=" + f"{0x1000 + 12 * 64:016x}"),
        ('"%5d|%-5d|%05d|%x", REC->pid, REC->pid, REC->pid, REC->ret', "   12|12   |00012|fffffffe"),
        ('"%s", __get_str(name)', "a path"),
        ('"%d%d", -1UL == REC->ret + 1, 0xffffffffffffffff != -1UL', "10"),
        ("\"%c%%\", 'a'", "a%"),
        ('"%d", (REC->pid / 5) * 100 + REC->pid % 5 - (7 >> 1)', "199"),
        ('"a" "b" "%d", !REC->pid || ~0', "ab1"),
        ('"%s", __print_hex(REC->comm, 4)', "69 6e 69 74"),
        ('"two\nlines"', "two\nlines"),
    ],
)
def test_print_formats_read_as_c(text: str, expected: str) -> None:
    """As the kernel's own format files have them."""
    assert write(parse(text), environment()) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"%d"',
        '"%d", REC->none',
        '"%s", __unknown(REC->pid)',
        '"%d", REC->pid / 0',
        '"%pI4", REC->addr',
        '"%d", ' + "(" * 500 + "1" + ")" * 500,
        '"%d", ' + "-" * 500 + "1",
        '"%d", 1 +',
        "no string",
        '"%d", REC->comm',
        '"%s", REC->addr',
        '"%d", `',
    ],
)
def test_what_is_not_understood_is_not_guessed(text: str) -> None:
    """However it is wrong, or how deep."""
    with pytest.raises(NotUnderstood):
        format_ = parse(text)
        write(format_, environment())


def test_a_width_from_memory_is_bounded() -> None:
    """A format may ask for a billion blanks."""
    shown = printf("%1000000000d", [1], lambda address, offset: "")
    assert len(shown) <= 512


@given(st.text(max_size=60))
def test_any_format_is_read_or_refused(text: str) -> None:
    """Text from a snapshot ends in one of two ways."""
    try:
        write(parse(text), environment())
    except NotUnderstood:
        return


def test_arguments_of_trace_printk_lie_as_the_kernel_puts_them() -> None:
    """Numbers on their boundary, long ones on one of four bytes, strings with their zero."""
    data = (
        struct.pack("<i", -5)
        + b"word\0"
        + bytes(3)
        + struct.pack("<Q", 1 << 40)
        + b"x"
        + bytes(3)
        + struct.pack("<I", 7)
    )
    assert decode_binary("%d %s %llu %c %u%%", data) == [0xFFFFFFFB, "word", 1 << 40, ord("x"), 7]
    with pytest.raises(NotUnderstood):
        decode_binary("%d %d", struct.pack("<i", 1))
    with pytest.raises(NotUnderstood):
        decode_binary("%s", b"without an end")


@pytest.mark.parametrize(
    ("declaration", "size", "form"),
    [
        ("int", 4, FieldForm.NUMBER),
        ("char[16]", 16, FieldForm.TEXT),
        ("u8[8]", 8, FieldForm.ARRAY),
        ("__data_loc char[]", 4, FieldForm.TEXT_LOCATION),
        ("__data_loc u32[]", 4, FieldForm.DATA_LOCATION),
        ("__rel_loc char[]", 4, FieldForm.RELATIVE_TEXT_LOCATION),
    ],
)
def test_a_fields_form_is_told_by_its_type(declaration: str, size: int, form: FieldForm) -> None:
    """As the format files write it."""
    assert form_of(declaration, size) is form
    assert form.is_text == ("char" in declaration)
