"""What do the debugging entries of one compile unit say?

DWARF 2 to 5, 32-bit format, section 7.5. A unit of a kernel has tens of thousands of entries, of which a question needs a
few: entries are skipped by their siblings, and attributes are read only where they are asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import U64
from orcdbg.formats.dwarf_bytes import Cursor, DebugSection, Work
from orcdbg.formats.elf import ElfFile

TAG_LEXICAL_BLOCK, TAG_INLINED, TAG_SUBPROGRAM, TAG_NAMESPACE, TAG_COMPILE_UNIT = 0x0B, 0x1D, 0x2E, 0x39, 0x11
AT_SIBLING, AT_NAME, AT_STMT_LIST, AT_LOW_PC, AT_HIGH_PC, AT_COMP_DIR = 0x01, 0x03, 0x10, 0x11, 0x12, 0x1B
AT_ABSTRACT_ORIGIN, AT_SPECIFICATION, AT_RANGES, AT_CALL_FILE, AT_CALL_LINE = 0x31, 0x47, 0x55, 0x58, 0x59
_IMPLICIT_CONST, _INDIRECT, _STRP, _LINE_STRP, _STRING, _ADDRESS = 0x21, 0x16, 0x0E, 0x1F, 0x08, 0x01
_REFERENCES = {0x11, 0x12, 0x13, 0x14, 0x15}  # from the unit's start; ref_addr (0x10) from the section's
_REF_ADDR = 0x10
MAX_ABBREVIATIONS, MAX_ATTRIBUTES, MAX_ENTRIES, MAX_DEPTH, MAX_RANGES = 1 << 16, 256, 1 << 22, 64, 1 << 18
_ABBREV_STEP = 1 << 16

# Bytes of forms that have a size of their own; blocks by the bytes of their length; the others are LEB128 numbers.
_FIXED = {
    0x01: 8, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x0E: 4, 0x10: 4, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8,
    0x17: 4, 0x19: 0, 0x1C: 4, 0x1D: 4, 0x1E: 16, 0x1F: 4, 0x20: 8, 0x21: 0, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3,
    0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4, 0x1F20: 4, 0x1F21: 4,
}  # fmt: skip
_BLOCKS = {0x0A: 1, 0x03: 2, 0x04: 4, 0x09: 0, 0x18: 0}
_LEB = {0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23}
_SDATA = 0x0D

Range = tuple[int, int]
Value = int | bytes


class Abbreviation(NamedTuple):
    """The shape of entries: tag, whether children follow, and attributes with form and implicit value.

    `size` is the bytes of all attributes where that is fixed, else None; `sibling` is where among the first of fixed
    size the sibling's offset (four bytes) is, None where it is elsewhere or there is none.
    """

    tag: int
    has_children: bool
    attributes: tuple[tuple[int, int, int], ...]
    size: int | None
    sibling: int | None


class Entry(NamedTuple):
    """An entry: its offset in the unit, its shape, where its attributes begin and where its children or sibling do."""

    offset: int
    shape: Abbreviation
    attributes_at: int
    end: int

    @property
    def tag(self) -> int:
        """What it describes."""
        return self.shape.tag


def _shape(tag: int, has_children: bool, attributes: tuple[tuple[int, int, int], ...]) -> Abbreviation:
    size, sibling = 0, None
    for attribute, form, _ in attributes:
        if form not in _FIXED:
            return Abbreviation(tag, has_children, attributes, None, sibling)
        if attribute == AT_SIBLING and form == 0x13:
            sibling = size
        size += _FIXED[form]
    return Abbreviation(tag, has_children, attributes, size, sibling)


class DebugSections:
    """The sections that entries draw on."""

    def __init__(self, elf: ElfFile) -> None:
        self.info = DebugSection(elf, ".debug_info")
        self.abbrev = DebugSection(elf, ".debug_abbrev")
        self.strings = DebugSection(elf, ".debug_str")
        self.line_strings = DebugSection(elf, ".debug_line_str")
        self.ranges = DebugSection(elf, ".debug_ranges")
        self.range_lists = DebugSection(elf, ".debug_rnglists")
        self.lines = DebugSection(elf, ".debug_line")
        self.aranges = DebugSection(elf, ".debug_aranges")
        self.work = Work(elf.source.name)


class Unit:
    """One compile unit.

    Args:
        sections: the file's.
        offset: of the unit in `.debug_info`.
        head_only: only so much is read that the root entry can be.

    Raises:
        UnsupportedFormat: it is damaged, or of a form not read.
    """

    def __init__(self, sections: DebugSections, offset: int, head_only: bool = False) -> None:
        self._sections = sections
        self.offset = offset
        head = sections.info.up_to(offset, 16)
        name = sections.info.name
        cursor = Cursor(head, 0, len(head), name)
        length = cursor.fixed(4)
        if length >= 0xFFFF_FFF0:
            raise UnsupportedFormat(name, f"64-bit DWARF at offset {offset:#x}")
        self.version = cursor.fixed(2)
        self.size = length + 4
        if self.version == 5:
            kind, address_size, abbreviations = cursor.fixed(1), cursor.fixed(1), cursor.fixed(4)
        elif 2 <= self.version <= 4:
            kind, abbreviations, address_size = 1, cursor.fixed(4), cursor.fixed(1)
        else:
            raise UnsupportedFormat(name, f"DWARF version {self.version} at offset {offset:#x}")
        if kind not in (1, 3) or address_size != 8:
            raise UnsupportedFormat(name, f"a unit of kind {kind} with addresses of {address_size} bytes")
        self._data = (
            sections.info.up_to(offset, min(self.size, 4096)) if head_only else sections.info.read(offset, self.size)
        )
        self._head_only = head_only
        self._first = cursor.at
        self._abbreviations_at = abbreviations
        self._name = name

    @functools.cached_property
    def _shapes(self) -> dict[int, Abbreviation]:
        """Abbreviations by code; where only the root is asked for, those as far as its own."""
        section, step = self._sections.abbrev, _ABBREV_STEP
        last = self._cursor(self._first).uleb() if self._head_only else None
        while True:
            data = section.up_to(self._abbreviations_at, step)
            try:
                return _abbreviations(Cursor(data, 0, len(data), section.name), self._sections.work, last)
            except UnsupportedFormat:
                if len(data) < step or step > 64 * _ABBREV_STEP:
                    raise
                step *= 8

    @functools.cached_property
    def root(self) -> Entry:
        """The unit's own entry."""
        found = self._entry(self._first)
        if found is None:
            raise UnsupportedFormat(self._name, f"the unit at {self.offset:#x} is empty")
        return found

    def _cursor(self, at: int) -> Cursor:
        return Cursor(self._data, at, len(self._data), self._name)

    def _entry(self, offset: int) -> Entry | None:
        """The entry at an offset in the unit; None for the end of a list of siblings."""
        cursor = self._cursor(offset)
        code = cursor.uleb()
        self._sections.work.spend(1)
        if code == 0:
            return None
        shape = self._shapes.get(code)
        if shape is None:
            raise UnsupportedFormat(self._name, f"abbreviation {code} is not in the table")
        at = cursor.at
        if shape.size is not None:
            return Entry(offset, shape, at, at + shape.size)
        self._sections.work.spend(len(shape.attributes))
        for _, form, _ in shape.attributes:
            _skip(cursor, form)
        return Entry(offset, shape, at, cursor.at)

    def children(self, parent: Entry) -> Iterator[Entry]:
        """The entries directly below one."""
        if not parent.shape.has_children:
            return
        at = parent.end
        for _ in range(MAX_ENTRIES):
            entry = self._entry(at)
            if entry is None:
                return
            yield entry
            at = self._after(entry, 0)
        raise UnsupportedFormat(self._name, f"more than {MAX_ENTRIES} entries below one")

    def _after(self, entry: Entry, depth: int) -> int:
        """Where the next sibling is, or the end of the list."""
        if not entry.shape.has_children:
            return entry.end
        at = self._sibling(entry)
        if at is not None:
            if at <= entry.offset:
                raise UnsupportedFormat(self._name, f"the sibling of {entry.offset:#x} lies before it")
            return at
        if depth > MAX_DEPTH:
            raise UnsupportedFormat(self._name, f"entries nested deeper than {MAX_DEPTH}")
        at = entry.end
        for _ in range(MAX_ENTRIES):
            child = self._entry(at)
            if child is None:
                return at + 1
            at = self._after(child, depth + 1)
        raise UnsupportedFormat(self._name, f"more than {MAX_ENTRIES} entries below one")

    def _sibling(self, entry: Entry) -> int | None:
        if entry.shape.sibling is not None:
            at = entry.attributes_at + entry.shape.sibling
            return int.from_bytes(self._data[at : at + 4], "little")
        found = self.attributes(entry).get(AT_SIBLING)
        return found if isinstance(found, int) else None

    def attributes(self, entry: Entry) -> dict[int, Value]:
        """The attributes of an entry by number; strings as bytes, references counted from the unit's start.

        Values of forms that are not read (type signatures, indexed addresses) are left out.
        """
        cursor = self._cursor(entry.attributes_at)
        self._sections.work.spend(len(entry.shape.attributes))
        found: dict[int, Value] = {}
        for attribute, form, implicit in entry.shape.attributes:
            value = self._value(cursor, form, implicit)
            if isinstance(value, bytes):
                self._sections.work.spend(len(value) >> 6)
            if value is not None:
                found[attribute] = value
        return found

    def form_of(self, entry: Entry, attribute: int) -> int | None:
        """The form in which an entry has an attribute."""
        return next((form for found, form, _ in entry.shape.attributes if found == attribute), None)

    def _value(self, cursor: Cursor, form: int, implicit: int) -> Value | None:
        if form == _STRING:
            return cursor.string()
        if form == _STRP:
            return self._sections.strings.string(cursor.fixed(4))
        if form == _LINE_STRP:
            return self._sections.line_strings.string(cursor.fixed(4))
        if form == _IMPLICIT_CONST:
            return implicit
        if form == _REF_ADDR:
            return cursor.fixed(4) - self.offset
        if form == _SDATA:
            return cursor.sleb()
        if form in (0x0F, 0x15):
            return cursor.uleb()
        if form in (0x1A, 0x1B, 0x22, 0x23, 0x1D, 0x1C, 0x1E, 0x20, 0x1F20, 0x1F21) or 0x25 <= form <= 0x2C:
            _skip(cursor, form)
            return None
        if form in _FIXED:
            return cursor.fixed(_FIXED[form]) if form != 0x19 else 1
        _skip(cursor, form)
        return None

    def name_of(self, entry: Entry) -> str | None:
        """An entry's name, or that of the entry it stands for."""
        for _ in range(MAX_DEPTH):
            found = self.attributes(entry)
            name = found.get(AT_NAME)
            if isinstance(name, bytes):
                return name.decode("utf-8", "replace")
            target = found.get(AT_ABSTRACT_ORIGIN, found.get(AT_SPECIFICATION))
            if not isinstance(target, int) or not self._first <= target < self.size:
                return None
            following = self._entry(target)
            if following is None:
                return None
            entry = following
        return None

    def ranges(self, entry: Entry) -> list[Range]:
        """[start, end) of the code of an entry, link addresses."""
        found = self.attributes(entry)
        low, high, at = found.get(AT_LOW_PC), found.get(AT_HIGH_PC), found.get(AT_RANGES)
        if isinstance(at, int):
            return self._range_list(at)
        if not isinstance(low, int) or not isinstance(high, int):
            return []
        return [(low, high if self.form_of(entry, AT_HIGH_PC) == _ADDRESS else low + high & U64)]

    @functools.cached_property
    def _base(self) -> int:
        low = self.attributes(self.root).get(AT_LOW_PC)
        return low if isinstance(low, int) else 0

    def _range_list(self, offset: int) -> list[Range]:
        section = self._sections.range_lists if self.version >= 5 else self._sections.ranges
        read = _range_list if self.version >= 5 else _old_range_list
        step = 1 << 10
        while True:
            data = section.up_to(offset, step)
            try:
                found = read(Cursor(data, 0, len(data), section.name), self._base)
                self._sections.work.spend(len(found))
                return found
            except UnsupportedFormat:
                if len(data) < step or step > 16 * MAX_RANGES:
                    raise
                self._sections.work.spend(step >> 4)
                step *= 8


def _abbreviations(cursor: Cursor, work: Work, last: int | None) -> dict[int, Abbreviation]:
    """Shapes by code, to the end of the table or to the one with the code `last`."""
    found: dict[int, Abbreviation] = {}
    for _ in range(MAX_ABBREVIATIONS):
        code = cursor.uleb()
        if code == 0:
            return found
        tag, has_children = cursor.uleb(), bool(cursor.fixed(1))
        attributes: list[tuple[int, int, int]] = []
        while True:
            attribute, form = cursor.uleb(), cursor.uleb()
            implicit = cursor.sleb() if form == _IMPLICIT_CONST else 0
            if not attribute and not form:
                break
            attributes.append((attribute, form, implicit))
            if len(attributes) > MAX_ATTRIBUTES:
                raise UnsupportedFormat(cursor.name, f"an entry of more than {MAX_ATTRIBUTES} attributes")
        work.spend(4 + 2 * len(attributes))
        found[code] = _shape(tag, has_children, tuple(attributes))
        if code == last:
            return found
    raise UnsupportedFormat(cursor.name, f"more than {MAX_ABBREVIATIONS} abbreviations")


def _skip(cursor: Cursor, form: int) -> None:
    """Passes over a value."""
    if form in _FIXED:
        cursor.at += _FIXED[form]
    elif form in _LEB:
        cursor.uleb()
    elif form == _STRING:
        cursor.string()
    elif form in _BLOCKS:
        size = cursor.fixed(_BLOCKS[form]) if _BLOCKS[form] else cursor.uleb()
        cursor.take(size)
    elif form == _INDIRECT:
        inner = cursor.uleb()
        if inner == _INDIRECT:
            raise UnsupportedFormat(cursor.name, "an indirect form that is indirect")
        _skip(cursor, inner)
    else:
        raise UnsupportedFormat(cursor.name, f"attribute form {form:#x} is not known")


def _range_list(cursor: Cursor, base: int) -> list[Range]:
    """DWARF 5, section 7.25; entries that name addresses by index are refused."""
    found: list[Range] = []
    while True:
        kind = cursor.fixed(1)
        if kind == 0:
            return found
        if kind == 4:
            start, end = base + cursor.uleb(), base + cursor.uleb()
        elif kind == 5:
            base = cursor.fixed(8)
            continue
        elif kind == 6:
            start, end = cursor.fixed(8), cursor.fixed(8)
        elif kind == 7:
            start = cursor.fixed(8)
            end = start + cursor.uleb()
        else:
            raise UnsupportedFormat(cursor.name, f"a range of kind {kind}")
        found.append((start, end))
        _check_count(cursor, found)


def _check_count(cursor: Cursor, found: list[Range]) -> None:
    if len(found) > MAX_RANGES:
        raise UnsupportedFormat(cursor.name, f"more than {MAX_RANGES} ranges in one list")


def _old_range_list(cursor: Cursor, base: int) -> list[Range]:
    """DWARF 2 to 4."""
    found: list[Range] = []
    while True:
        start, end = cursor.fixed(8), cursor.fixed(8)
        if not start and not end:
            return found
        if start == U64:
            base = end
        else:
            found.append((base + start & U64, base + end & U64))
            _check_count(cursor, found)
