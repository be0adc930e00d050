"""Which source line, through which inlined functions, does a link address come from, by the image's DWARF?

Only the unit that holds the address is read, and of its entries only the one function's. Nothing is read before the first
question; a unit that was read is kept for the next.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from elftools.dwarf.die import DIE

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import clamped
from orcdbg.formats import dwarf_entries as dwarf
from orcdbg.formats.dwarf_entries import DebugEntries, Range, Unit
from orcdbg.formats.dwarf_lines import LineTable, SourceLine
from orcdbg.formats.dwarf_sections import DebugSections
from orcdbg.formats.elf import ElfFile
from orcdbg.image.source_position import Inlined, Position

MAX_UNITS = 1 << 20
MAX_INLINED = 64
MAX_FUNCTIONS = 1 << 20
MAX_RANGES = 1 << 20
KEPT_UNITS = 16

_SET = struct.Struct("<IHIBB")  # the header of a set in .debug_aranges


class _LoadedUnit:
    """One unit that was read."""

    def __init__(self, entries: DebugEntries, offset: int) -> None:
        self.unit = Unit(entries, offset)
        self._sections = entries.sections

    @functools.cached_property
    def lines(self) -> LineTable | None:
        """Its line program; None where it has none."""
        offset = dwarf.integer(self.unit.root, "DW_AT_stmt_list")
        if offset is None:
            return None
        return LineTable(self._sections, offset, dwarf.text(self.unit.root, "DW_AT_comp_dir") or "")

    @functools.cached_property
    def functions(self) -> list[tuple[Range, DIE]]:
        """Its functions that have code, once for each piece of it."""
        functions: list[tuple[Range, DIE]] = []
        self._collect(self.unit.root, functions, 0)
        return functions

    def _collect(self, parent: DIE, functions: list[tuple[Range, DIE]], depth: int) -> None:
        for entry in self.unit.children(parent):
            if entry.tag == dwarf.SUBPROGRAM:
                functions += [(piece, entry) for piece in self.unit.ranges(entry)]
            elif entry.tag == dwarf.NAMESPACE and depth < dwarf.MAX_DEPTH:
                self._collect(entry, functions, depth + 1)

            if len(functions) > MAX_FUNCTIONS:
                name = f"{self._sections.info.name}, unit at {self.unit.offset:#x}"
                raise UnsupportedFormat(name, "a unit with too many functions")

    def inlined(self, address: int) -> list[DIE]:
        """The inlined calls that an address is in, outermost first."""
        parent = next((entry for (start, end), entry in self.functions if start <= address < end), None)

        chain: list[DIE] = []
        while parent is not None and len(chain) < MAX_INLINED:
            parent = self._below(parent, address, 0)
            if parent is not None:
                chain.append(parent)
        return chain

    def _below(self, parent: DIE, address: int, depth: int) -> DIE | None:
        """The inlined call directly below an entry, blocks left out of account, that holds the address."""
        for entry in self.unit.children(parent):
            if entry.tag not in (dwarf.INLINED, dwarf.LEXICAL_BLOCK):
                continue

            ranges = self.unit.ranges(entry)
            holds = any(start <= address < end for start, end in ranges)
            if entry.tag == dwarf.INLINED and holds:
                return entry

            if entry.tag == dwarf.LEXICAL_BLOCK and (holds or not ranges) and depth < dwarf.MAX_DEPTH:
                inner = self._below(entry, address, depth + 1)
                if inner is not None:
                    return inner
        return None


class SourceLines:
    """The line information of one image, in the file that has its DWARF; None is one without."""

    def __init__(self, elf: ElfFile | None) -> None:
        self._elf = elf
        self._units: dict[int, _LoadedUnit] = {}

    @functools.cached_property
    def _sections(self) -> DebugSections:
        assert self._elf is not None
        return DebugSections(self._elf)

    @functools.cached_property
    def _entries(self) -> DebugEntries:
        return DebugEntries(self._sections)

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

    def _unit_at(self, address: int) -> _LoadedUnit | None:
        starts, ends, offsets = self._ranges
        self._sections.work.begin()
        index = int(np.searchsorted(starts, clamped(address), side="right")) - 1
        if index < 0 or address >= int(ends[index]):
            return None
        offset = int(offsets[index])
        if offset not in self._units:
            if len(self._units) >= KEPT_UNITS:
                del self._units[next(iter(self._units))]
            self._units[offset] = _LoadedUnit(self._entries, offset)
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
            unit = Unit(self._entries, offset)
            if unit.root.tag == dwarf.COMPILE_UNIT:
                yield from ((start, end, offset) for start, end in unit.ranges(unit.root))
            offset += unit.size


def _position(unit: _LoadedUnit, lines: LineTable, line: SourceLine | None, chain: list[DIE]) -> Position:
    """The address's own line is the innermost function's; each other is where it called the next."""
    inlined: list[Inlined] = []
    here = line
    for entry in reversed(chain):
        inlined.append(Inlined(unit.unit.name_of(entry) or "?", here))
        here = _call_site(lines, entry)
    return Position(line, tuple(inlined), here)


def _call_site(lines: LineTable, entry: DIE) -> SourceLine | None:
    file, line = dwarf.integer(entry, "DW_AT_call_file"), dwarf.integer(entry, "DW_AT_call_line")
    if file is None or line is None:
        return None
    name = lines.file(file)
    return None if name is None else SourceLine(name, line)
