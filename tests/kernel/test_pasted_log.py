"""A pasted report is the same report whatever stands in front of its lines, and however long they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.kernel.headlines import headlines
from orcdbg.kernel.oops import printed_traces
from orcdbg.kernel.oops_details import printed_kernel, printed_registers
from orcdbg.kernel.pasted_log import MAX_LINES, read_pasted
from tests.build.oops_texts import NULL_612, as_mailed, without_times

PLAIN = without_times(NULL_612)
FORMS = {
    "with times": NULL_612,
    "without": PLAIN,
    "mailed": as_mailed(NULL_612),
    "mailed without times": as_mailed(PLAIN),
    "mailed twice": as_mailed(as_mailed(PLAIN), 200),
    "carriage returns": NULL_612.replace("\n", "\r\n"),
    "levels": "".join(f"<4>{line}\n" for line in NULL_612.splitlines()),
    "callers": NULL_612.replace("] ", "][ T4242] ", 1).replace("\n[", "\n<1>["),
    "syslog": "".join(f"Feb 30 12:00:00 mill kernel: {line}\n" for line in NULL_612.splitlines()),
    "iso": "".join(f"2025-02-28T12:00:00.123456+00:00 mill kernel: {line}\n" for line in PLAIN.splitlines()),
    "dates": "".join(f"[Fri Feb 28 12:00:00 2025] {line}\n" for line in PLAIN.splitlines()),
    "coloured": "".join(f"\x1b[31m{line}\x1b[0m\n" for line in NULL_612.splitlines()),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_stands_around_a_report_does_not_count(form: str) -> None:
    """Traces, announcements, registers, code and the kernel's name are the same."""
    expected, found = read_pasted(NULL_612.encode()).records, read_pasted(FORMS[form].encode()).records
    assert [line.text for line in headlines(found)] == [line.text for line in headlines(expected)]
    assert [trace.frames for trace in printed_traces(found)] == [trace.frames for trace in printed_traces(expected)]
    registers, theirs = printed_registers(found), printed_registers(expected)
    assert [one.values for one in registers] == [one.values for one in theirs]
    assert registers[0].code == theirs[0].code
    assert printed_kernel(found).releases == ["6.12.9-made-up"]
    assert printed_kernel(found).modules == {"mill": "OE", "loop": "", "veth": "", "bridge": ""}
    assert (printed_kernel(found).taint, printed_kernel(found).offset) == ("GWO", 0x1C000000)


def test_what_a_program_wrote_is_passed_over_where_a_level_says_so() -> None:
    """Facility 1 is that of programs."""
    (record,) = read_pasted(b"<12>Kernel panic - not syncing: planted\n<4>").records[:1]
    assert record.is_from_user_space
    assert list(headlines([record])) == []


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\x7fELF\0\0\0"])
def test_what_is_no_text(data: bytes) -> None:
    """It is refused."""
    with pytest.raises(UnsupportedFormat):
        read_pasted(data)


def test_a_text_is_bounded() -> None:
    """More lines than a console has are left out, and said to be."""
    found = read_pasted(b"x\n" * (MAX_LINES + 5))
    assert len(found.records) == MAX_LINES
    assert found.problems == [f"only the first {MAX_LINES} lines of the text are looked at"]


@given(
    st.lists(st.sampled_from([*NULL_612.splitlines(), "> ", "Code: ", "RIP: 0010:", "CPU: ", "[mill]", "\x1b[", "? "]))
)
def test_any_lines_are_read(lines: list[str]) -> None:
    """In any order, they give a value or an OrcdbgError."""
    try:
        records = read_pasted("\n".join(lines).encode()).records
    except OrcdbgError:
        return
    printed_traces(records), printed_registers(records), printed_kernel(records)
