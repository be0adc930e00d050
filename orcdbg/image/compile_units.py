"""Which compile unit of a file's DWARF is an address in, or an entry?

Nothing is read before the first question, and of a unit only what is asked for; a few units are kept for the next question.
"""

from __future__ import annotations

import bisect
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
from orcdbg.formats.dwarf_lines import LineTable
from orcdbg.formats.dwarf_sections import DebugSections, Relocate
from orcdbg.formats.elf import ElfFile

MAX_UNITS = 1 << 20
MAX_INLINED = 64
MAX_FUNCTIONS = 1 << 20
MAX_RANGES = 1 << 20
KEPT_UNITS = 32
# Of one unit, by address: stacks of many tasks lead through the same ones.
KEPT_SCOPES = 1 << 10
KEPT_CALL_SITES = 1 << 6
# Variables, blocks and calls of one function.
MAX_PARTS = 1 << 14

_CALL_SITES = ("DW_TAG_call_site", "DW_TAG_GNU_call_site")

_SET = struct.Struct("<IHIBB")  # the header of a set in .debug_aranges
_HEADER_WINDOW = 1 << 12
_LONG = 0xFFFF_FFFF  # the length that says that the true one follows, of 8 bytes


class CompileUnit:
    """One unit that was read."""

    def __init__(self, entries: DebugEntries, offset: int) -> None:
        self.unit = Unit(entries, offset)
        self._sections = entries.sections
        self._scopes: dict[int, list[DIE]] = {}
        self._call_sites: dict[int, list[DIE]] = {}

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

    def function(self, address: int) -> DIE | None:
        """The function that an address is in."""
        return next((entry for (start, end), entry in self.functions if start <= address < end), None)

    def scopes(self, address: int) -> list[DIE]:
        """What an address is in, outermost first: the function, then blocks and the calls that were inlined."""
        if address not in self._scopes:
            if len(self._scopes) >= KEPT_SCOPES:
                self._scopes.clear()
            function = self.function(address)
            below = [] if function is None else [function, *self._scopes_below(function, address, 0)]
            self._scopes[address] = below
        return self._scopes[address]

    def _scopes_below(self, parent: DIE, address: int, depth: int) -> list[DIE]:
        if depth > dwarf.MAX_DEPTH:
            return []
        for entry in self.unit.children(parent):
            if entry.tag not in (dwarf.INLINED, dwarf.LEXICAL_BLOCK):
                continue

            ranges = self.unit.ranges(entry)
            if any(start <= address < end for start, end in ranges):
                return [entry, *self._scopes_below(entry, address, depth + 1)]

            # A block that states no code is around the code of its children.
            if entry.tag == dwarf.LEXICAL_BLOCK and not ranges:
                inner = self._scopes_below(entry, address, depth + 1)
                if inner:
                    return [entry, *inner]
        return []

    def call_sites(self, function: DIE) -> list[DIE]:
        """What a function says of the calls in it, those in blocks and inlined calls too."""
        if function.offset not in self._call_sites:
            if len(self._call_sites) >= KEPT_CALL_SITES:
                self._call_sites.clear()
            self._call_sites[function.offset] = list(self._sites_below(function))
        return self._call_sites[function.offset]

    def _sites_below(self, function: DIE) -> Iterator[DIE]:
        pending = [(function, 0)]
        count = 0
        while pending:
            parent, depth = pending.pop()
            for child in self.unit.children(parent):
                count += 1
                if count > MAX_PARTS:
                    raise UnsupportedFormat(self.unit.name, f"a function of more than {MAX_PARTS} parts")
                if child.tag in _CALL_SITES:
                    yield child
                elif child.tag in (dwarf.INLINED, dwarf.LEXICAL_BLOCK) and depth < dwarf.MAX_DEPTH:
                    pending.append((child, depth + 1))

    def inlined(self, address: int) -> list[DIE]:
        """The inlined calls that an address is in, outermost first."""
        parent = self.function(address)

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


class CompileUnits:
    """The units of one file.

    Args:
        elf: the file.
        relocate: links the bytes of its sections, where it is not linked.

    Every method raises UnsupportedFormat where they are damaged, or of a form not read.
    """

    def __init__(self, elf: ElfFile, relocate: Relocate | None = None) -> None:
        self._elf = elf
        self._relocate = relocate
        self._units: dict[int, CompileUnit] = {}

    @functools.cached_property
    def sections(self) -> DebugSections:
        """The file's debug sections."""
        return DebugSections(self._elf, self._relocate)

    @functools.cached_property
    def entries(self) -> DebugEntries:
        """The file's entries."""
        return DebugEntries(self.sections)

    def at(self, address: int) -> CompileUnit | None:
        """The unit whose code is at a link address."""
        starts, ends, offsets = self._ranges
        index = int(np.searchsorted(starts, clamped(address), side="right")) - 1
        if index < 0 or address >= int(ends[index]):
            return None
        return self._loaded(int(offsets[index]))

    def holding(self, offset: int) -> CompileUnit:
        """The unit that an offset in `.debug_info` is in."""
        index = bisect.bisect_right(self.offsets, offset) - 1
        if index < 0 or offset >= self.sections.info.size:
            raise UnsupportedFormat(self.sections.info.name, f"no unit is at offset {offset:#x}")
        return self._loaded(self.offsets[index])

    def _loaded(self, offset: int) -> CompileUnit:
        self.sections.work.begin()
        unit = self._units.pop(offset, None)
        if unit is None:
            if len(self._units) >= KEPT_UNITS:
                del self._units[next(iter(self._units))]
            unit = CompileUnit(self.entries, offset)
        # The one that was asked for longest ago goes first: all stacks lead through the scheduler's unit, of 2,000 functions.
        self._units[offset] = unit
        return unit

    @functools.cached_property
    def offsets(self) -> list[int]:
        """Where each unit begins, by their headers: each says how long its unit is."""
        info = self.sections.info
        offsets: list[int] = []
        at = 0
        while at + 4 <= info.size:
            if len(offsets) >= MAX_UNITS:
                raise UnsupportedFormat(info.name, f"more than {MAX_UNITS} units")
            offsets.append(at)
            header = info.up_to(at, 12)
            length = int.from_bytes(header[:4], "little")
            at += 12 + int.from_bytes(header[4:], "little") if length == _LONG else 4 + length
        return offsets

    @functools.cached_property
    def _ranges(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """First addresses in rising order, ends, and offsets of units."""
        sections = self.sections
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
        section = self.sections.aranges
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
            if offset >= self.sections.info.size:
                return
            unit = Unit(self.entries, offset)
            if unit.root.tag == dwarf.COMPILE_UNIT:
                yield from ((start, end, offset) for start, end in unit.ranges(unit.root))
            offset += unit.size
