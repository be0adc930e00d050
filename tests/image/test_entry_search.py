"""Variables are found by the bytes of their addresses, and only those that are meant."""

from __future__ import annotations

import struct

import pytest

from orcdbg.base.reading import BytesSource
from orcdbg.formats.elf import ElfFile
from orcdbg.image.compile_units import CompileUnits
from orcdbg.image.entry_search import EntrySearch
from tests.build import entries as made
from tests.build.dwarf import TEXT, image_with

ADDRESS = 0xFFFF_FFFF_8200_1000
PER_CPU = 0x33440


def search_in(root: made.Entry, version: int = 5, first_code: int = 1, **others: bytes) -> EntrySearch:
    """A search in a file with one unit."""
    data = image_with(made.sections_of(root, version, first_code, others))
    return EntrySearch(CompileUnits(ElfFile(BytesSource("made", data))))


def unit(**attributes: object) -> made.Entry:
    """A unit."""
    return made.Entry(made.COMPILE_UNIT, name="made.c", low_pc=TEXT, **attributes)


def offsets(search: EntrySearch, name: str, address: int) -> list[int]:
    """Where the variables found are."""
    return [found.entry.offset for found in search.variables(name, address)]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("first_code", [1, 200, 20_000])
@pytest.mark.parametrize("address", [ADDRESS, PER_CPU])
def test_a_variable_is_found_by_name_and_address(version: int, first_code: int, address: int) -> None:
    """Whatever number its abbreviation has; per-CPU variables were linked to low addresses."""
    root = unit()
    root.add(made.VARIABLE, name="other", location=made.address_expression(address + 8))
    wanted = root.add(made.VARIABLE, name="wanted", location=made.address_expression(address))
    search = search_in(root, version, first_code)
    assert offsets(search, "wanted", address) == [wanted.offset]
    assert offsets(search, "other", address) == []
    assert offsets(search, "wanted", address + 8) == []


def test_a_variable_may_leave_its_name_to_its_declaration() -> None:
    """gcc declares in a header and defines in a file."""
    root = unit()
    declared = root.add(made.VARIABLE, name="wanted", declaration=True)
    defined = root.add(made.VARIABLE, specification=declared, location=made.address_expression(ADDRESS))
    assert offsets(search_in(root), "wanted", ADDRESS) == [defined.offset]


def test_a_static_variable_of_a_function_is_found() -> None:
    """Blocks and inlined calls may be around it."""
    root = unit()
    block = root.add(made.SUBPROGRAM, name="f", low_pc=TEXT, high_pc=16).add(made.BLOCK)
    wanted = block.add(made.VARIABLE, name="wanted", location=made.address_expression(ADDRESS))
    assert offsets(search_in(root), "wanted", ADDRESS) == [wanted.offset]


def test_an_address_that_is_passed_is_no_variable() -> None:
    """Call sites have the same expressions."""
    root = unit()
    site = root.add(made.SUBPROGRAM, name="wanted", low_pc=TEXT, high_pc=16).add(
        made.CALL_SITE, call_return_pc=TEXT + 5
    )
    site.add(made.CALL_PARAMETER, location=b"\x55", call_value=made.address_expression(ADDRESS))
    assert offsets(search_in(root), "wanted", ADDRESS) == []


def test_where_several_starts_fit_the_unit_is_read() -> None:
    """The code 0x83 0x01 ends in a code of its own, by which another entry would begin a byte later."""
    root = unit()
    wanted = root.add(made.VARIABLE, name="wanted", location=made.address_expression(ADDRESS))
    sections = made.sections_of(root, 5, 0x82)
    # A declaration with the code 1 that fits as well: a variable of a name and a location.
    sections[".debug_abbrev"] = b"\x01\x34\x00\x03\x0e\x02\x18\x00\x00" + sections[".debug_abbrev"]
    search = EntrySearch(CompileUnits(ElfFile(BytesSource("made", image_with(sections)))))
    found = list(search.variables("wanted", ADDRESS))
    assert [each.entry.offset for each in found] == [wanted.offset]


def test_addresses_by_number_are_found() -> None:
    """As clang writes them in DWARF 5."""
    table = struct.pack("<IHBB", 20, 5, 8, 0) + struct.pack("<QQ", ADDRESS - 8, ADDRESS)
    root = unit(addr_base=made.Offset(8))
    wanted = root.add(made.VARIABLE, name="wanted", location=b"\xa1\x01")
    root.add(made.VARIABLE, name="other", location=b"\xa1\x00")
    search = search_in(root, addr=table)
    assert offsets(search, "wanted", ADDRESS) == [wanted.offset]
    assert offsets(search, "wanted", ADDRESS - 8) == []


def test_an_entry_of_a_name_is_found_among_bytes_that_look_like_it() -> None:
    """A constant with the four bytes of a reference to the name is none."""
    root = unit()
    wanted = root.add(made.STRUCTURE, name="wanted", byte_size=8)
    first = made.sections_of(root)[".debug_str"].index(b"wanted")
    root.children.insert(0, made.Entry(made.VARIABLE, const_value=b"\x02" + struct.pack("<I", first)))
    found = list(search_in(root).named("wanted", {"DW_TAG_structure_type"}))
    assert [each.entry.offset for each in found] == [wanted.offset]
