"""Debugging entries made by code: a unit of entries that a test spells out, in any version of DWARF.

unit = Entry(COMPILE_UNIT, name="made.c")
number = unit.add(BASE_TYPE, name="int", byte_size=4, encoding=5)
unit.add(VARIABLE, name="nr", type=number, location=address_expression(ADDRESS))
sections_of(unit, 5)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from tests.build.dwarf import TEXT, uleb

COMPILE_UNIT, BASE_TYPE, POINTER, STRUCTURE, UNION, MEMBER = 0x11, 0x24, 0x0F, 0x13, 0x17, 0x0D
ARRAY, SUBRANGE, ENUMERATION, ENUMERATOR, TYPEDEF = 0x01, 0x21, 0x04, 0x28, 0x16
CONST, VOLATILE, RESTRICT, ATOMIC, FUNCTION_TYPE = 0x26, 0x35, 0x37, 0x47, 0x15
SUBPROGRAM, PARAMETER, UNSPECIFIED_PARAMETERS, VARIABLE = 0x2E, 0x05, 0x18, 0x34
INLINED, BLOCK, CALL_SITE, CALL_PARAMETER = 0x1D, 0x0B, 0x48, 0x49

_ATTRIBUTES = {
    "sibling": 0x01, "location": 0x02, "name": 0x03, "byte_size": 0x0B, "bit_offset": 0x0C, "bit_size": 0x0D,
    "low_pc": 0x11, "high_pc": 0x12, "const_value": 0x1C, "upper_bound": 0x2F, "abstract_origin": 0x31, "count": 0x37,
    "data_member_location": 0x38, "declaration": 0x3C, "encoding": 0x3E, "external": 0x3F, "frame_base": 0x40,
    "specification": 0x47, "type": 0x49, "data_bit_offset": 0x6B, "addr_base": 0x73, "call_value": 0x7E,
    "call_return_pc": 0x7D, "call_all_calls": 0x7A, "call_tail_call": 0x82,
}  # fmt: skip

_ADDR, _DATA8, _STRING, _SDATA, _STRP, _UDATA, _REF4, _SEC_OFFSET, _EXPRLOC, _FLAG_PRESENT = (
    0x01, 0x07, 0x08, 0x0D, 0x0E, 0x0F, 0x13, 0x17, 0x18, 0x19,
)  # fmt: skip
_ADDRESSES = ("low_pc", "call_return_pc")


class Offset(NamedTuple):
    """An offset in another section."""

    value: int


class Entry:
    """An entry: its attributes by their names, `_` behind the one that Python keeps for itself.

    A number is a DW_FORM_sdata, or an address where the attribute is one; text a name among the strings, bytes an expression,
    True a flag, another entry a reference.
    """

    def __init__(self, tag: int, **attributes: object) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Entry] = []
        self.offset = 0

    def add(self, tag: int, **attributes: object) -> Entry:
        """A child."""
        child = Entry(tag, **attributes)
        self.children.append(child)
        return child


def address_expression(address: int) -> bytes:
    """DW_OP_addr."""
    return b"\x03" + struct.pack("<Q", address)


def _sleb(value: int) -> bytes:
    out = b""
    while True:
        byte, value = value & 127, value >> 7
        if (value == 0 and not byte & 64) or (value == -1 and byte & 64):
            return out + bytes([byte])
        out += bytes([byte | 128])


class _Writer:
    """Writes one unit."""

    def __init__(self, head: int, first_code: int) -> None:
        self.strings = b"\0"
        self._codes: dict[tuple[int, bool, tuple[tuple[int, int], ...]], int] = {}
        self._first_code = first_code
        self._head = head

    def _field(self, name: str, value: object) -> tuple[int, bytes]:
        if value is True:
            return _FLAG_PRESENT, b""
        if isinstance(value, Entry):
            return _REF4, struct.pack("<I", value.offset)
        if isinstance(value, Offset):
            return _SEC_OFFSET, struct.pack("<I", value.value)
        if isinstance(value, bytes):
            return _EXPRLOC, uleb(len(value)) + value
        if isinstance(value, str):
            data = value.encode() + b"\0"
            if data not in self.strings:
                self.strings += data
            return _STRP, struct.pack("<I", self.strings.index(data))
        assert isinstance(value, int)
        return (_ADDR, struct.pack("<Q", value)) if name in _ADDRESSES else (_SDATA, _sleb(value))

    def entry(self, entry: Entry, at: int) -> bytes:
        """An entry and those below it, `at` bytes into the unit."""
        entry.offset = at
        fields = [(_ATTRIBUTES[name], *self._field(name, value)) for name, value in entry.attributes.items()]
        shape = entry.tag, bool(entry.children), tuple((name, form) for name, form, _ in fields)
        code = self._codes.setdefault(shape, self._first_code + len(self._codes))
        data = uleb(code) + b"".join(field for _, _, field in fields)
        for child in entry.children:
            data += self.entry(child, at + len(data))
        return data + b"\0" if entry.children else data

    def abbreviations(self) -> bytes:
        """The table of them."""
        out = b""
        for (tag, has_children, fields), code in self._codes.items():
            out += uleb(code) + uleb(tag) + bytes([has_children])
            out += b"".join(uleb(name) + uleb(form) for name, form in fields) + b"\0\0"
        return out + b"\0"


def sections_of(
    root: Entry, version: int = 5, first_code: int = 1, others: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """The debug sections of a unit.

    Args:
        root: its first entry.
        version: of DWARF, 4 or 5.
        first_code: of its abbreviations; from 128 on each takes two bytes.
        others: further sections, `loclists` for `.debug_loclists`.
    """
    writer = _Writer(12 if version == 5 else 11, first_code)
    head = 12 if version == 5 else 11
    writer.entry(root, head)  # so that later entries have their places
    body = writer.entry(root, head)
    header = struct.pack("<HBBI", 5, 1, 8, 0) if version == 5 else struct.pack("<HIB", version, 0, 8)
    info = struct.pack("<I", len(header + body)) + header + body
    aranges = struct.pack("<HIBB4xQQQQ", 2, 0, 8, 0, TEXT, 0x100, 0, 0)
    return {
        ".debug_info": info,
        ".debug_abbrev": writer.abbreviations(),
        ".debug_str": writer.strings,
        ".debug_aranges": struct.pack("<I", len(aranges)) + aranges,
        **{f".debug_{name}": data for name, data in (others or {}).items()},
    }
