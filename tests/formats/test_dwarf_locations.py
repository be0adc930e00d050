"""Lists of locations: every kind of entry, and lists that do not end."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.dwarf_entries import DebugEntries, Unit
from orcdbg.formats.dwarf_locations import Located, location_list
from orcdbg.formats.dwarf_sections import DebugSections
from orcdbg.formats.elf import ElfFile
from tests.build import entries as made
from tests.build.dwarf import TEXT, image_with, uleb

_REGISTER = b"\x01\x55"  # the length of an expression, and DW_OP_reg5


def listed(version: int, data: bytes, **others: bytes) -> list[Located]:
    """The list at the beginning of the section."""
    section = {"loclists" if version == 5 else "loc": data}
    root = made.Entry(made.COMPILE_UNIT, low_pc=TEXT, addr_base=made.Offset(8))
    sections = DebugSections(
        ElfFile(BytesSource("made", image_with(made.sections_of(root, version, others={**section, **others}))))
    )
    sections.work.begin()
    return location_list(sections, Unit(DebugEntries(sections), 0), 0)


def address(value: int) -> bytes:
    """Eight bytes."""
    return struct.pack("<Q", value)


@pytest.mark.parametrize(
    ("entry", "start", "end"),
    [
        (b"\x04" + uleb(0x10) + uleb(0x20), TEXT + 0x10, TEXT + 0x20),
        (b"\x07" + address(TEXT) + address(TEXT + 4), TEXT, TEXT + 4),
        (b"\x08" + address(TEXT) + uleb(4), TEXT, TEXT + 4),
        (b"\x06" + address(TEXT + 0x100) + b"\x04" + uleb(1) + uleb(2), TEXT + 0x101, TEXT + 0x102),
        (b"\x01" + uleb(1) + b"\x04" + uleb(1) + uleb(2), TEXT + 0x41, TEXT + 0x42),
        (b"\x02" + uleb(0) + uleb(1), TEXT + 0x30, TEXT + 0x40),
        (b"\x03" + uleb(1) + uleb(8), TEXT + 0x40, TEXT + 0x48),
        (b"\x09\x00\x00\x04" + uleb(1) + uleb(2), TEXT + 1, TEXT + 2),
        (b"\x05", 0, 1 << 64),
    ],
)
def test_each_kind_of_entry(entry: bytes, start: int, end: int) -> None:
    """DWARF 5, section 7.7.3, and GNU's pairs of views, which say nothing of places."""
    table = struct.pack("<IHBB", 20, 5, 8, 0) + struct.pack("<QQ", TEXT + 0x30, TEXT + 0x40)
    assert listed(5, entry + _REGISTER + b"\0", addr=table) == [Located(start, end, b"\x55")]


def test_the_default_holds_where_nothing_else_does() -> None:
    """Wherever it stands in the list."""
    data = b"\x05\x01\x56" + b"\x04" + uleb(1) + uleb(2) + _REGISTER + b"\0"
    assert [located.expression for located in listed(5, data)] == [b"\x55", b"\x56"]


def test_the_older_form() -> None:
    """Pairs of addresses from the unit's first, and a new base."""
    data = address(0x10) + address(0x20) + b"\x01\x00\x55"
    data += address((1 << 64) - 1) + address(TEXT + 0x100) + address(1) + address(2) + b"\x01\x00\x56" + bytes(16)
    assert listed(4, data) == [
        Located(TEXT + 0x10, TEXT + 0x20, b"\x55"),
        Located(TEXT + 0x101, TEXT + 0x102, b"\x56"),
    ]


@pytest.mark.parametrize("version", [4, 5])
def test_a_long_list_is_read_whole(version: int) -> None:
    """Longer than the piece that is read at first."""
    if version == 5:
        entries = [b"\x04" + uleb(number) + uleb(number + 1) + _REGISTER for number in range(2000)]
        end = b"\0"
    else:
        entries = [address(number) + address(number + 1) + b"\x01\x00\x55" for number in range(2000)]
        entries[0] = address(TEXT) + address(TEXT + 1) + b"\x01\x00\x55"  # 0, 1 is an entry, 0, 0 would be the end
        end = bytes(16)
    assert len(listed(version, b"".join(entries) + end)) == 2000


@pytest.mark.parametrize("version", [4, 5])
def test_a_list_without_an_end_is_refused(version: int) -> None:
    """It is not taken for a list that ends where the section does."""
    entry = b"\x04\x01\x02" + _REGISTER if version == 5 else address(1) + address(2) + b"\x01\x00\x55"
    with pytest.raises(UnsupportedFormat):
        listed(version, entry)


@given(st.sampled_from((4, 5)), st.binary(max_size=300))
def test_any_bytes_give_a_list_or_an_error(version: int, data: bytes) -> None:
    """Nothing else."""
    try:
        listed(version, data)
    except OrcdbgError:
        pass
