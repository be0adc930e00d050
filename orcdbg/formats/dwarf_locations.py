"""Which expression says where a variable is while the program stands at an address?

DWARF 5, section 2.6: one expression for all of a variable's scope, or a list of them, each for a range of addresses.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from elftools.dwarf.die import DIE

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.sizes import U64
from orcdbg.formats.dwarf_cursor import Cursor
from orcdbg.formats.dwarf_entries import Unit, integer
from orcdbg.formats.dwarf_sections import DebugSection, DebugSections

# A list is read in a piece, which is doubled where it is too short. The longest of a kernel has 20 KB.
_PIECE = 1 << 12
MAX_LIST = 1 << 20

_BASE_SELECTION = U64


class ListEntryKind(enum.IntEnum):
    """DW_LLE_*: what an entry of a list in DWARF 5 is."""

    END_OF_LIST = 0
    BASE_ADDRESSX = 1
    STARTX_ENDX = 2
    STARTX_LENGTH = 3
    OFFSET_PAIR = 4
    DEFAULT_LOCATION = 5
    BASE_ADDRESS = 6
    START_END = 7
    START_LENGTH = 8
    VIEW_PAIR = 9  # GNU's


class Located(NamedTuple):
    """An expression that holds from `start` to before `end`, link addresses."""

    start: int
    end: int
    expression: bytes


def expression_at(sections: DebugSections, unit: Unit, entry: DIE, address: int) -> bytes | None:
    """The expression that says where a variable is at a link address, None where it is nowhere.

    Raises:
        UnsupportedFormat: the list is damaged, or of a form not read.
    """
    location = entry.attributes.get("DW_AT_location")
    if location is None:
        return None
    if not isinstance(location.value, int):
        return bytes(location.value)
    located = location_list(sections, unit, location.value)
    return next((each.expression for each in located if each.start <= address < each.end), None)


def location_list(sections: DebugSections, unit: Unit, offset: int) -> list[Located]:
    """A list's expressions, the default one last.

    Args:
        sections: the file's.
        unit: the variable's.
        offset: of the list in `.debug_loclists`, before DWARF 5 in `.debug_loc`.
    """
    is_new = unit.version >= 5
    section = sections.location_lists if is_new else sections.locations
    size = _PIECE
    while True:
        data = section.up_to(offset, size)
        cursor = Cursor(data, 0, len(data), section.name)
        sections.work.spend(1 + len(data) // 64)
        try:
            return list(_new_list(sections, unit, cursor) if is_new else _old_list(unit, cursor))
        except UnsupportedFormat:
            if len(data) < size or size >= MAX_LIST:
                raise
        size *= 4


def _old_list(unit: Unit, cursor: Cursor) -> Iterator[Located]:
    """DWARF 4, section 2.6.2."""
    base = unit.base_address
    while True:
        start, end = cursor.fixed(8), cursor.fixed(8)
        if start == end == 0:
            return
        if start == _BASE_SELECTION:
            base = end
            continue
        expression = cursor.take(cursor.fixed(2))
        yield Located(start + base & U64, end + base & U64, expression)


def _new_list(sections: DebugSections, unit: Unit, cursor: Cursor) -> Iterator[Located]:
    """DWARF 5, section 7.7.3."""
    base = unit.base_address
    defaults: list[bytes] = []
    while True:
        kind = cursor.fixed(1)
        if kind == ListEntryKind.END_OF_LIST:
            break
        if kind == ListEntryKind.BASE_ADDRESSX:
            base = address_of_number(sections, unit, cursor.uleb())
        elif kind == ListEntryKind.BASE_ADDRESS:
            base = cursor.fixed(8)
        elif kind == ListEntryKind.VIEW_PAIR:
            cursor.uleb()
            cursor.uleb()
        elif kind == ListEntryKind.DEFAULT_LOCATION:
            defaults.append(cursor.take(cursor.uleb()))
        else:
            start, end = _range(sections, unit, cursor, kind, base)
            yield Located(start, end, cursor.take(cursor.uleb()))
    yield from (Located(0, 1 << 64, expression) for expression in defaults)


def _range(sections: DebugSections, unit: Unit, cursor: Cursor, kind: int, base: int) -> tuple[int, int]:
    if kind == ListEntryKind.OFFSET_PAIR:
        return cursor.uleb() + base & U64, cursor.uleb() + base & U64
    if kind == ListEntryKind.START_END:
        return cursor.fixed(8), cursor.fixed(8)
    if kind == ListEntryKind.START_LENGTH:
        start = cursor.fixed(8)
        return start, start + cursor.uleb() & U64
    if kind in (ListEntryKind.STARTX_ENDX, ListEntryKind.STARTX_LENGTH):
        start = address_of_number(sections, unit, cursor.uleb())
        last = cursor.uleb()
        return start, address_of_number(
            sections, unit, last
        ) if kind == ListEntryKind.STARTX_ENDX else start + last & U64
    raise UnsupportedFormat(cursor.name, f"an entry of kind {kind} in a list of locations")


def address_of_number(sections: DebugSections, unit: Unit, number: int) -> int:
    """The address that has a number in the unit's part of `.debug_addr`."""
    base = integer(unit.root, "DW_AT_addr_base")
    if base is None:
        raise UnsupportedFormat(unit.name, "it numbers addresses, and the unit has none")
    section: DebugSection = sections.addresses
    return int.from_bytes(section.read(base + 8 * number, 8), "little")
