"""Source lines and inlined functions, of DWARF made by code; those of real kernels are compared in the lab."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import BytesSource
from orcdbg.formats.dwarf_lines import SourceLine
from orcdbg.formats.elf import ElfFile
from orcdbg.image.source_lines import SourceLines
from orcdbg.image.source_position import Inlined, Position
from tests.build.dwarf import DECLARED, SIZE, TEXT, debug_sections, image_with

MADE, HEADER = "made.c", "include/made.h"
VERSIONS = (2, 3, 4, 5)


def lines_of(sections: dict[str, bytes]) -> SourceLines:
    """The line information of an image with these sections."""
    return SourceLines(ElfFile(BytesSource("made", image_with(sections))))


@pytest.mark.parametrize("table", [True, False], ids=["with .debug_aranges", "without"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_address_is_named_with_all_functions_it_is_in(version: int, table: bool) -> None:
    """Innermost first: its own line, then where each function was inlined."""
    sections = debug_sections(version)
    if not table:
        del sections[".debug_aranges"]
    lines = lines_of(sections)
    plain = SourceLine(MADE, 10)
    assert lines.at(TEXT) == Position(plain, (), plain)
    assert lines.at(TEXT + 0x25) == Position(
        SourceLine(HEADER, 22), (Inlined("middle", SourceLine(HEADER, 22)),), SourceLine(MADE, 11)
    )
    inner = SourceLine(HEADER, 33)
    assert lines.at(TEXT + 0x30) == Position(
        inner, (Inlined("inner", inner), Inlined("middle", SourceLine(HEADER, 22))), SourceLine(MADE, 11)
    )
    last = SourceLine(MADE, 12)
    assert lines.at(TEXT + SIZE - 1) == Position(last, (), last)


def test_an_address_outside_every_unit_has_no_position() -> None:
    """Before the first and behind the last."""
    lines = lines_of(debug_sections(5))
    assert lines.at(TEXT - 1) is None
    assert lines.at(TEXT + SIZE) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_function_is_declared_where_the_build_says(version: int) -> None:
    """Whatever is inlined at the address."""
    lines = lines_of(debug_sections(version))
    assert lines.declared_at(TEXT + 0x30) == ("outer", SourceLine(MADE, DECLARED))
    assert lines.declared_at(TEXT - 1) is None


def test_an_image_without_dwarf_has_no_positions() -> None:
    """Such as one that was stripped."""
    lines = lines_of({})
    assert not lines.is_there
    assert lines.at(TEXT) is None


@given(st.sampled_from(VERSIONS), st.sampled_from(sorted(debug_sections(5))), st.integers(0), st.integers(1, 255))
def test_damage_gives_a_position_or_an_error_of_ours(version: int, section: str, place: int, change: int) -> None:
    """One byte of one section is another."""
    sections = debug_sections(version)
    name = section if section in sections else ".debug_info"
    data = bytearray(sections[name])
    data[place % len(data)] ^= change
    lines = lines_of({**sections, name: bytes(data)})
    for offset in (0, 0x25, 0x30, SIZE - 1):
        try:
            lines.at(TEXT + offset)
        except OrcdbgError:
            continue


@given(st.sampled_from(VERSIONS), st.sampled_from(sorted(debug_sections(5))), st.integers(0))
def test_a_section_that_is_cut_off_gives_a_position_or_an_error_of_ours(version: int, section: str, size: int) -> None:
    """At any length."""
    sections = debug_sections(version)
    name = section if section in sections else ".debug_info"
    lines = lines_of({**sections, name: sections[name][: size % len(sections[name])]})
    for offset in (0, 0x30):
        try:
            lines.at(TEXT + offset)
        except OrcdbgError:
            continue
