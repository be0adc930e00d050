"""Which source line, through which inlined functions, does a link address come from, by the image's DWARF?

Only the unit that holds the address is read, and of its entries only the one function's. Nothing is read before the first
question; a unit that was read is kept for the next.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import clamped
from orcdbg.formats import dwarf_entries as entries
from orcdbg.formats.dwarf_entries import DebugSections, Entry, Range, Unit
from orcdbg.formats.dwarf_lines import LineTable, SourceLine
from orcdbg.formats.elf import ElfFile

MAX_UNITS, MAX_INLINED, MAX_FUNCTIONS, MAX_RANGES, KEPT_UNITS = 1 << 20, 64, 1 << 20, 1 << 20, 16
_SET = struct.Struct("<IHIBB")


class Inlined(NamedTuple):
    """A function that the compiler put into another, and where in it the address is."""

    symbol: str
    at: SourceLine | None


class Position(NamedTuple):
    """Where an address is in the source: its own line; the functions inlined there, innermost first; and the line in the
    function that is not inlined, which is the same where nothing is.
    """

    line: SourceLine | None
    inlined: tuple[Inlined, ...]
    function_line: SourceLine | None


class _Loaded:
    """One unit that was read."""

    def __init__(self, sections: DebugSections, offset: int) -> None:
        self.unit = Unit(sections, offset)
        self._sections = sections

    @functools.cached_property
    def lines(self) -> LineTable | None:
        """Its line program; None where it has none."""
        found = self.unit.attributes(self.unit.root)
        at, directory = found.get(entries.AT_STMT_LIST), found.get(entries.AT_COMP_DIR)
        if not isinstance(at, int):
            return None
        folder = directory.decode("utf-8", "replace") if isinstance(directory, bytes) else ""
        return LineTable(self._sections, at, folder)

    @functools.cached_property
    def functions(self) -> list[tuple[Range, Entry]]:
        """Its functions that have code, once for each piece of it."""
        found: list[tuple[Range, Entry]] = []
        self._collect(self.unit.root, found, 0)
        return found

    def _collect(self, parent: Entry, found: list[tuple[Range, Entry]], depth: int) -> None:
        for entry in self.unit.children(parent):
            if entry.tag == entries.TAG_SUBPROGRAM:
                found += [(one, entry) for one in self.unit.ranges(entry)]
            elif entry.tag == entries.TAG_NAMESPACE and depth < entries.MAX_DEPTH:
                self._collect(entry, found, depth + 1)
            if len(found) > MAX_FUNCTIONS:
                raise UnsupportedFormat(self.unit_name, "a unit with too many functions")

    @property
    def unit_name(self) -> str:
        """For messages."""
        return f"{self._sections.info.name}, unit at {self.unit.offset:#x}"

    def inlined(self, address: int) -> list[Entry]:
        """The inlined calls that an address is in, outermost first."""
        parent = next((entry for (start, end), entry in self.functions if start <= address < end), None)
        found: list[Entry] = []
        while parent is not None and len(found) < MAX_INLINED:
            parent = self._below(parent, address, 0)
            if parent is not None:
                found.append(parent)
        return found

    def _below(self, parent: Entry, address: int, depth: int) -> Entry | None:
        """The inlined call directly below an entry, blocks left out of account, that holds the address."""
        for entry in self.unit.children(parent):
            if entry.tag not in (entries.TAG_INLINED, entries.TAG_LEXICAL_BLOCK):
                continue
            ranges = self.unit.ranges(entry)
            holds = any(start <= address < end for start, end in ranges)
            if entry.tag == entries.TAG_INLINED and holds:
                return entry
            if entry.tag == entries.TAG_LEXICAL_BLOCK and (holds or not ranges) and depth < entries.MAX_DEPTH:
                found = self._below(entry, address, depth + 1)
                if found is not None:
                    return found
        return None


class SourceLines:
    """The line information of one image, in the file that has its DWARF; None is one without."""

    def __init__(self, elf: ElfFile | None) -> None:
        self._elf = elf
        self._units: dict[int, _Loaded] = {}

    @functools.cached_property
    def _sections(self) -> DebugSections:
        assert self._elf is not None
        return DebugSections(self._elf)

    @property
    def is_there(self) -> bool:
        """True for an image with DWARF; UnsupportedFormat where that has a damaged header."""
        return self._elf is not None and bool(self._sections.info.size and self._sections.lines.size)

    def at(self, address: int) -> Position | None:
        """The source position of a link address; None where the image does not say.

        Raises:
            UnsupportedFormat: the information is damaged, or of a form not read.
        """
        unit = self._unit_at(address)
        if unit is None or unit.lines is None:
            return None
        line = unit.lines.at(address)
        return _position(unit, unit.lines, line, unit.inlined(address))

    def _unit_at(self, address: int) -> _Loaded | None:
        starts, ends, offsets = self._ranges
        self._sections.work.begin()
        index = int(np.searchsorted(starts, clamped(address), side="right")) - 1
        if index < 0 or address >= int(ends[index]):
            return None
        offset = int(offsets[index])
        if offset not in self._units:
            if len(self._units) >= KEPT_UNITS:
                del self._units[next(iter(self._units))]
            self._units[offset] = _Loaded(self._sections, offset)
        return self._units[offset]

    @functools.cached_property
    def _ranges(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """First addresses in rising order, ends, and offsets of units."""
        sections = self._sections
        sections.work.begin(sections.abbrev.size + sections.range_lists.size + sections.ranges.size)  # each read once
        rows = self._from_table() if sections.aranges.size else self._from_roots()
        found = list(itertools.islice(rows, MAX_RANGES + 1))
        if len(found) > MAX_RANGES:
            raise UnsupportedFormat(sections.info.name, f"units with more than {MAX_RANGES} ranges")
        kept = [row for row in found if 0 < row[0] < row[1] < 1 << 64]
        table = np.array(sorted(kept), dtype=np.uint64).reshape(-1, 3)
        return table[:, 0], table[:, 1], table[:, 2]

    def _from_table(self) -> Iterator[tuple[int, int, int]]:
        """`.debug_aranges`: sets of a unit's ranges."""
        section = self._sections.aranges
        data, at = section.read(0, section.size), 0
        while at + _SET.size <= len(data):
            length, version, unit, address_size, segment_size = _SET.unpack_from(data, at)
            end = at + 4 + length
            if version != 2 or address_size != 8 or segment_size or length >= 0xFFFF_FFF0 or end > len(data):
                raise UnsupportedFormat(section.name, f"a set at offset {at:#x} of a form not read")
            first = at + -(-_SET.size // 16) * 16
            for start, size in struct.iter_unpack("<QQ", data[first : end - (end - first) % 16]):
                yield start, start + size, unit
            at = end

    def _from_roots(self) -> Iterator[tuple[int, int, int]]:
        """The units' own entries, where there is no table."""
        offset = 0
        for _ in range(MAX_UNITS):
            if offset >= self._sections.info.size:
                return
            unit = Unit(self._sections, offset, head_only=True)
            if unit.root.tag == entries.TAG_COMPILE_UNIT:
                yield from ((start, end, offset) for start, end in unit.ranges(unit.root))
            offset += unit.size


def _position(unit: _Loaded, lines: LineTable, line: SourceLine | None, chain: list[Entry]) -> Position:
    """The address's own line is the innermost function's; each other is where it called the next."""
    found: list[Inlined] = []
    here = line
    for entry in reversed(chain):
        found.append(Inlined(unit.unit.name_of(entry) or "?", here))
        here = _call_site(unit.unit, lines, entry)
    return Position(line, tuple(found), here)


def _call_site(unit: Unit, lines: LineTable, entry: Entry) -> SourceLine | None:
    values = unit.attributes(entry)
    file, line = values.get(entries.AT_CALL_FILE), values.get(entries.AT_CALL_LINE)
    if not isinstance(file, int) or not isinstance(line, int):
        return None
    name = lines.file(file)
    return None if name is None else SourceLine(name, line)
