"""What do the debugging entries (DIEs) of one compile unit say?

pyelftools takes entries, abbreviations and range lists apart, DWARF 2 to 5. What is here is what a debugger adds to it:
a unit of a kernel has tens of thousands of entries, of which a question needs a few, so sections are read in windows and
abbreviations one by one; and a file may be hostile, so every read costs part of a budget, siblings may only lie ahead, and
whatever the library raises is an `UnsupportedFormat` with the file's name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct import ConstructError
from elftools.construct.lib.container import Container
from elftools.dwarf.abbrevtable import AbbrevDecl, AbbrevTable
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.dwarf.enums import ENUM_DW_AT, ENUM_DW_FORM, ENUM_DW_TAG
from elftools.dwarf.ranges import BaseAddressEntry
from elftools.dwarf.structs import DWARFStructs

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.sizes import U64
from orcdbg.formats.dwarf_cursor import Cursor
from orcdbg.formats.dwarf_sections import DebugSection, DebugSections, Work

Range = tuple[int, int]

COMPILE_UNIT = "DW_TAG_compile_unit"
SUBPROGRAM = "DW_TAG_subprogram"
NAMESPACE = "DW_TAG_namespace"
INLINED = "DW_TAG_inlined_subroutine"
LEXICAL_BLOCK = "DW_TAG_lexical_block"
VARIABLE = "DW_TAG_variable"
PARAMETER = "DW_TAG_formal_parameter"

MAX_DEPTH = 64
MAX_RANGES = 1 << 18

# Entries lie beside one another; strings are picked from all over their section.
_WIDE_WINDOW = 1 << 16
_NARROW_WINDOW = 1 << 9
_LOT = 256

# What a damaged file makes the library raise, as 1,500 mutants of a small one showed, besides its own two kinds.
_LIBRARY_ERRORS = (
    ELFError,
    DWARFError,
    ConstructError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)

# A piece of a table of abbreviations; and the longest declaration.
_ABBREVIATIONS = 1 << 12
MAX_ABBREVIATION = 1 << 20
_IMPLICIT_CONST = 0x21

_TAG_NAMES = {number: name for name, number in reversed(ENUM_DW_TAG.items()) if isinstance(number, int)}
_ATTRIBUTE_NAMES = {number: name for name, number in reversed(ENUM_DW_AT.items()) if isinstance(number, int)}
_FORM_NAMES = {number: name for name, number in reversed(ENUM_DW_FORM.items()) if isinstance(number, int)}

# What an entry has before the attribute that a search goes by: a name, and numbers.
_ENTRY_HEAD = 256
_LEB_FORMS = {f"DW_FORM_{form}" for form in ("udata", "sdata", "ref_udata", "strx", "addrx", "loclistx", "rnglistx")}
_OFFSET_FORMS = {f"DW_FORM_{form}" for form in ("strp", "line_strp", "sec_offset", "ref_addr")}
_FORM_SIZES = {
    "DW_FORM_flag_present": 0,
    "DW_FORM_implicit_const": 0,
    **dict.fromkeys(("DW_FORM_data1", "DW_FORM_ref1", "DW_FORM_flag", "DW_FORM_strx1", "DW_FORM_addrx1"), 1),
    **dict.fromkeys(("DW_FORM_data2", "DW_FORM_ref2", "DW_FORM_strx2", "DW_FORM_addrx2"), 2),
    **dict.fromkeys(("DW_FORM_strx3", "DW_FORM_addrx3"), 3),
    **dict.fromkeys(("DW_FORM_data4", "DW_FORM_ref4", "DW_FORM_strx4", "DW_FORM_addrx4"), 4),
    **dict.fromkeys(("DW_FORM_data8", "DW_FORM_ref8", "DW_FORM_ref_sig8", "DW_FORM_addr"), 8),
}

_UNIT_REFERENCES = {f"DW_FORM_{form}" for form in ("ref1", "ref2", "ref4", "ref8", "ref_udata")}


@contextlib.contextmanager
def _library_errors(name: str) -> Iterator[None]:
    """Turns what the library raises over damage into UnsupportedFormat."""
    try:
        yield
    except _LIBRARY_ERRORS as error:
        raise UnsupportedFormat(name, f"its debugging entries are damaged: {error or type(error).__name__}") from error


class _SectionStream:
    """A debug section as the library reads one: a file that begins where the section does.

    It keeps one window of the section, since a kernel's sections have hundreds of megabytes. Every read is paid for, so that
    no loop inside the library, over a string without an end or a table that repeats itself, goes on for ever.
    """

    def __init__(self, section: DebugSection, work: Work, window: int) -> None:
        self._section = section
        self._work = work
        self._size = window
        self._window = b""
        self._begin = 0
        self._position = 0
        self._unpaid = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to an offset, which may lie outside: reads there come back empty."""
        base = (0, self._position, self._section.size)[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; fewer at the section's end."""
        # Paid for in lots: nearly all reads are of one to eight bytes, and some 400,000 of them name 40 stacks.
        self._unpaid += 1
        if self._unpaid >= _LOT or size > _LOT:
            self._work.spend(self._unpaid + (max(size, 0) >> 6))
            self._unpaid = 0

        start = self._position - self._begin
        end = start + size
        if not 0 <= start <= end <= len(self._window):
            self._fill(self._section.size - self._position if size < 0 else size)
            start = 0
            end = size if size >= 0 else len(self._window)

        data = self._window[start:end]
        self._position += len(data)
        return data

    def _fill(self, size: int) -> None:
        """Moves the window to the position, and as far as `size` bytes need."""
        self._begin = self._position
        is_inside = 0 <= self._position < self._section.size
        self._window = self._section.up_to(self._position, max(size, self._size)) if is_inside else b""


class _Attribute(NamedTuple):
    """An attribute of a declaration, by the names that the library uses; `value` of a DW_FORM_implicit_const."""

    name: str | int
    form: str | int
    value: int | None


class _Abbreviations(AbbrevTable):
    """An abbreviation table that is read as far as it is asked for.

    The library reads tables whole. A kernel without `.debug_aranges`, as clang builds it, has its units told apart by
    their first entries alone: thousands of tables, of each of which one row is needed. And it needs 80 us for a row, which
    was most of the time that a first question to a unit took; this needs 8.
    """

    __slots__ = ("_is_whole", "_next", "_section", "_work")

    def __init__(self, structs: DWARFStructs, stream: IO[bytes], offset: int, sections: DebugSections) -> None:
        self._next = offset
        self._is_whole = False
        self._section = sections.abbrev
        self._work = sections.work
        super().__init__(structs, stream, offset)

    def _parse_abbrev_table(self) -> dict[int, AbbrevDecl]:
        return {}

    def get_abbrev(self, code: int) -> AbbrevDecl:
        """The declaration with a code; KeyError where the table has none."""
        while code not in self._abbrev_map and not self._is_whole:
            self._read_some()
        return self._abbrev_map[code]

    def _read_some(self) -> None:
        """Reads the declarations in the next piece of the section, one at least."""
        size = _ABBREVIATIONS
        while True:
            data = self._section.up_to(self._next, size)
            cursor = Cursor(data, 0, len(data), self._section.name)
            done = 0
            try:
                while not self._is_whole and cursor.at < len(data):
                    self._read_one(cursor)
                    done = cursor.at
            except UnsupportedFormat:
                # The piece ends inside of a declaration; a real one has some ten bytes.
                if not done and self._next + size < self._section.size and size < MAX_ABBREVIATION:
                    size *= 2
                    continue
                if not done:
                    raise
            if not done:
                raise UnsupportedFormat(self._section.name, "a table of abbreviations without an end")
            self._next += done
            return

    def _read_one(self, cursor: Cursor) -> None:
        code = cursor.uleb()
        if code == 0:
            self._is_whole = True
            return

        tag = cursor.uleb()
        has_children = cursor.fixed(1)
        attributes: list[_Attribute] = []
        while True:
            name, form = cursor.uleb(), cursor.uleb()
            if not name and not form:
                break
            value = cursor.sleb() if form == _IMPLICIT_CONST else None
            attributes.append(_Attribute(_ATTRIBUTE_NAMES.get(name, name), _FORM_NAMES.get(form, form), value))

        self._work.spend(1 + len(attributes))
        declaration = {
            "tag": _TAG_NAMES.get(tag, tag),
            "children_flag": "DW_CHILDREN_yes" if has_children else "DW_CHILDREN_no",
            "attr_spec": attributes,
        }
        # Of equal codes the first counts, as for the library.
        self._abbrev_map.setdefault(code, AbbrevDecl(code, cast(Container, declaration)))


class _Dwarf(DWARFInfo):
    """The library's view of a file, whose abbreviation tables are read on demand."""

    sections: DebugSections

    def get_abbrev_table(self, offset: int) -> AbbrevTable:
        """The table at an offset in `.debug_abbrev`."""
        section = self.debug_abbrev_sec
        if section is None:
            raise DWARFError("no .debug_abbrev")
        if offset not in self._abbrevtable_cache:
            self._abbrevtable_cache[offset] = _Abbreviations(self.structs, section.stream, offset, self.sections)
        return self._abbrevtable_cache[offset]


class DebugEntries:
    """The entries of one file.

    Args:
        sections: the file's debug sections.
    """

    def __init__(self, sections: DebugSections) -> None:
        self.sections = sections

        def described(section: DebugSection, window: int = _WIDE_WINDOW) -> DebugSectionDescriptor | None:
            if not section.size:
                return None
            stream = cast(IO[bytes], _SectionStream(section, sections.work, window))
            return DebugSectionDescriptor(stream, section.name, None, section.size, 0)

        self.dwarf = _Dwarf(
            config=DwarfConfig(little_endian=True, machine_arch="x64", default_address_size=8),
            debug_info_sec=described(sections.info),
            debug_abbrev_sec=described(sections.abbrev),
            debug_str_sec=described(sections.strings, _NARROW_WINDOW),
            debug_line_str_sec=described(sections.line_strings, _NARROW_WINDOW),
            debug_str_offsets_sec=described(sections.string_offsets, _NARROW_WINDOW),
            debug_addr_sec=described(sections.addresses, _NARROW_WINDOW),
            debug_ranges_sec=described(sections.ranges, _NARROW_WINDOW),
            debug_rnglists_sec=described(sections.range_lists, _NARROW_WINDOW),
            # Lines, aranges and call frames are read by our own code, which is 5 to 100 times faster (decision 2).
            debug_line_sec=None,
            debug_aranges_sec=None,
            debug_frame_sec=None,
            eh_frame_sec=None,
            debug_loc_sec=None,
            # The library only looks up numbers of lists in it; the lists themselves are read by `dwarf_locations`.
            debug_loclists_sec=described(sections.location_lists, _NARROW_WINDOW),
            debug_pubtypes_sec=None,
            debug_pubnames_sec=None,
            debug_sup_sec=None,
            gnu_debugaltlink_sec=None,
            debug_types_sec=None,
        )
        self.dwarf.sections = sections
        self.range_lists = self.dwarf.range_lists()


class Unit:
    """One compile unit.

    Args:
        entries: the file's.
        offset: of the unit in `.debug_info`.

    Raises:
        UnsupportedFormat: it is damaged, or of a form not read; from every method likewise.
    """

    def __init__(self, entries: DebugEntries, offset: int) -> None:
        self._entries = entries
        self._name = entries.sections.info.name
        self.offset = offset

        with _library_errors(self._name):
            self._unit = entries.dwarf.get_CU_at(offset)
            self.size: int = self._unit.size
            address_size = self._unit["address_size"]
            if address_size != 8:
                raise UnsupportedFormat(self._name, f"a unit with addresses of {address_size} bytes")

            self.root = self._unit.get_top_DIE()
            if self.root.is_null():
                raise UnsupportedFormat(self._name, f"the unit at {offset:#x} is empty")

            self.base_address = integer(self.root, "DW_AT_low_pc") or 0
            self.version: int = self._unit["version"]
            # Of offsets into other sections: 4, in files of 64-bit DWARF 8.
            self.offset_size: int = self._unit.structs.dwarf_format // 8

    @property
    def name(self) -> str:
        """The file and section that it is in, for messages."""
        return self._name

    @property
    def first(self) -> int:
        """Where its first entry is, the root."""
        offset: int = self._unit.cu_die_offset
        return offset

    @property
    def end(self) -> int:
        """Where it ends in `.debug_info`."""
        return self.offset + self.size

    def entry(self, offset: int) -> DIE:
        """The entry at an offset in `.debug_info`, which has to be the start of one."""
        entry = self._entry(offset)
        if entry.is_null():
            raise UnsupportedFormat(self._name, f"no entry is at {offset:#x}")
        return entry

    def would_be_at(self, offset: int, attribute: str) -> int | None:
        """Where an attribute would be of an entry that began at an offset.

        None where no entry with that attribute can begin there, or something before the attribute has no plain size. Whether
        one does begin there the bytes do not say.
        """
        cursor = Cursor(self._entries.sections.info.up_to(offset, _ENTRY_HEAD), 0, _ENTRY_HEAD, self._name)
        try:
            code = cursor.uleb()
            with _library_errors(self._name):
                declaration = self._unit.get_abbrev_table().get_abbrev(code) if code else None
            if declaration is None:
                return None
            for name, form in declaration.iter_attr_specs():
                if name == attribute:
                    return offset + cursor.at
                self._skip(cursor, form)
        except UnsupportedFormat:
            return None
        return None

    def _skip(self, cursor: Cursor, form: str) -> None:
        if form in _LEB_FORMS:
            cursor.uleb()
        elif form == "DW_FORM_string":
            cursor.string()
        elif form in _OFFSET_FORMS:
            cursor.take(self.offset_size)
        elif form in _FORM_SIZES:
            cursor.take(_FORM_SIZES[form])
        else:
            raise UnsupportedFormat(self._name, f"a form without a plain size: {form}")

    def path_to(self, offset: int) -> list[DIE]:
        """The entries around the entry that an offset is inside of, that one last; empty where there is none."""
        path: list[DIE] = []
        entry: DIE | None = self.root
        while entry is not None and len(path) < MAX_DEPTH:
            path.append(entry)
            if entry.offset <= offset < entry.offset + entry.size:
                return path
            entry = self._child_around(entry, offset)
        return []

    def _child_around(self, parent: DIE, offset: int) -> DIE | None:
        last: DIE | None = None
        for child in self.children(parent):
            if child.offset > offset:
                break
            last = child
        return last

    def children(self, parent: DIE) -> Iterator[DIE]:
        """The entries directly below one.

        The library has such an iterator; in a damaged file, whose siblings lie behind one another, that one has no end.
        """
        if not parent.has_children:
            return
        offset = parent.offset + parent.size
        while True:
            child = self._entry(offset)
            if child.is_null():
                return
            yield child
            offset = self._after(child, 0)

    def _entry(self, offset: int) -> DIE:
        """The entry at an offset in `.debug_info`; a null entry ends a list of siblings."""
        if not self._unit.cu_die_offset <= offset < self.offset + self.size:
            raise UnsupportedFormat(self._name, f"an entry at {offset:#x} is outside of its unit")
        with _library_errors(self._name):
            return DIE(self._unit, self.root.stream, offset)

    def _after(self, entry: DIE, depth: int) -> int:
        """Where the next sibling of an entry is, or the end of the list."""
        end = entry.offset + entry.size
        if not entry.has_children:
            return end

        sibling = self.target(entry, "DW_AT_sibling")
        if sibling is not None:
            if sibling <= entry.offset:
                raise UnsupportedFormat(self._name, f"the sibling of {entry.offset:#x} lies before it")
            return sibling

        if depth > MAX_DEPTH:
            raise UnsupportedFormat(self._name, f"entries nested deeper than {MAX_DEPTH}")
        while True:
            child = self._entry(end)
            if child.is_null():
                return child.offset + child.size
            end = self._after(child, depth + 1)

    def target(self, entry: DIE, attribute: str) -> int | None:
        """The offset in `.debug_info` that an attribute refers to; None where there is none in a form that is read."""
        value = entry.attributes.get(attribute)
        if value is None or not isinstance(value.raw_value, int):
            return None
        if value.form in _UNIT_REFERENCES:
            return self.offset + value.raw_value
        return value.raw_value if value.form == "DW_FORM_ref_addr" else None

    def name_of(self, entry: DIE) -> str | None:
        """An entry's name, or that of the entry it stands for."""
        return next((name for each in self.accounts_of(entry) if (name := text(each, "DW_AT_name")) is not None), None)

    def accounts_of(self, entry: DIE) -> Iterator[DIE]:
        """An entry and those that it stands for: its abstract instance, its declaration; as far as they are in the unit."""
        for _ in range(MAX_DEPTH):
            yield entry
            target = self.target(entry, "DW_AT_abstract_origin") or self.target(entry, "DW_AT_specification")
            if target is None or not self._unit.cu_die_offset <= target < self.offset + self.size:
                return
            entry = self._entry(target)
            if entry.is_null():
                return

    def ranges(self, entry: DIE) -> list[Range]:
        """[start, end) of the code of an entry, link addresses."""
        at = integer(entry, "DW_AT_ranges")
        if at is not None:
            return self._range_list(at)

        low, high = integer(entry, "DW_AT_low_pc"), integer(entry, "DW_AT_high_pc")
        if low is None or high is None:
            return []
        # Since DWARF 4 the end may be a number of bytes.
        is_address = entry.attributes["DW_AT_high_pc"].form.startswith("DW_FORM_addr")
        return [(low, high if is_address else low + high & U64)]

    def _range_list(self, offset: int) -> list[Range]:
        """DWARF 5, section 2.17.3; the entries of older lists read alike."""
        lists = self._entries.range_lists
        if lists is None:
            raise UnsupportedFormat(self._name, "it refers to range lists that are not there")
        with _library_errors(self._name):
            entries = lists.get_range_list_at_offset(offset, self._unit)
        if len(entries) > MAX_RANGES:
            raise UnsupportedFormat(self._name, f"more than {MAX_RANGES} ranges in one list")

        base = self.base_address
        ranges: list[Range] = []
        for entry in entries:
            if isinstance(entry, BaseAddressEntry):
                base = entry.base_address
                continue
            start = 0 if entry.is_absolute else base
            ranges.append((entry.begin_offset + start & U64, entry.end_offset + start & U64))
        return ranges


def integer(entry: DIE, attribute: str) -> int | None:
    """An attribute's value as a number; None where the entry has none, or one of another kind."""
    found = entry.attributes.get(attribute)
    return found.value if found is not None and isinstance(found.value, int) else None


def text(entry: DIE, attribute: str) -> str | None:
    """An attribute's value as a string; None where the entry has none, or one of another kind."""
    found = entry.attributes.get(attribute)
    return found.value.decode("utf-8", "replace") if found is not None and isinstance(found.value, bytes) else None


def flag(entry: DIE, attribute: str) -> bool:
    """Whether an entry has a flag that is set."""
    found = entry.attributes.get(attribute)
    return found is not None and bool(found.value)
