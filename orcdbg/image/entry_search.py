"""Which debugging entries are of this address, or have this name?

A kernel has some ten million entries, and nothing in the file says which of them are a variable's or a type's. Reading them
all takes minutes. So their bytes are looked through for those that must be there: an expression that gives an address, or the
place of a name among the strings. What that finds is then read as entries, and counts only if it is of the name that was
asked for (decision 27).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from elftools.dwarf.die import DIE

from orcdbg.formats import dwarf_entries as dwarf
from orcdbg.formats.dwarf_entries import Unit
from orcdbg.formats.dwarf_sections import DebugSection
from orcdbg.image.compile_units import CompileUnit, CompileUnits

# A window of the section; a pattern may lie over its edge.
_WINDOW = 1 << 22
# An expression of 9 bytes that begins with DW_OP_addr, as its length and first byte stand together.
_ADDRESS_EXPRESSION = 0x0309
_EXPRESSION_SIZE = 10
_OP_ADDRX = 0xA1
# Where kernels and their modules are linked, and below which per-CPU variables were before 6.15 (commit 9d7de2aa8b41).
_KERNEL_BASE = 0xFFFF_FFFF_8000_0000
_PER_CPU_END = 1 << 28

# What comes before a variable's location in its entry: name, file, line, type and the like, some 16 bytes.
_BEFORE_LOCATION = 40
# Of bytes that look like the ones that were looked for. `mode` is among a kernel's bytes some hundred times.
MAX_HITS = 1 << 14
# A structure that everybody includes is defined in each unit, so the first few places tell. Each may cost a unit's 30 ms.
MAX_TRIES = 64
MAX_NAME = 1 << 10


class Entry(NamedTuple):
    """An entry with its unit."""

    unit: CompileUnit
    entry: DIE


class EntrySearch:
    """Looks for entries in one file.

    Args:
        units: of the file.

    Every method raises UnsupportedFormat where they are damaged.
    """

    def __init__(self, units: CompileUnits) -> None:
        self._units = units
        self._info = units.sections.info

    # By address

    def variables(self, name: str, address: int) -> Iterator[Entry]:
        """The variables of a name that are said to be at a link address."""
        for place in [*self._plain_places(address), *self._numbered_places(address)]:
            unit = self._units.holding(place)
            entry = self._variable(unit.unit, place, name)
            if entry is not None:
                yield Entry(unit, entry)

    def _plain_places(self, address: int) -> list[int]:
        addresses, places = self._address_expressions
        first, last = np.searchsorted(addresses, np.array([address, address + 1], dtype=np.uint64))
        return [int(place) for place in places[first:last][:MAX_HITS]]

    @functools.cached_property
    def _address_expressions(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """All addresses of kernel data that expressions of one operation give, sorted; and where each expression is.

        0.1 s for 200 MB, which one search for one address would take too. The bytes of an image that keeps its relocations
        (`--emit-relocs`) are relocated already.
        """
        found_addresses = [np.empty(0, dtype=np.uint64)]
        found_places = [np.empty(0, dtype=np.int64)]
        for begin, data in _windows(self._info, _EXPRESSION_SIZE):
            places = _places_of_pair(data, _ADDRESS_EXPRESSION)
            places = places[(places + _EXPRESSION_SIZE <= len(data)) & (places < _WINDOW)]
            columns = places[:, None] + np.arange(2, _EXPRESSION_SIZE)
            values = np.ascontiguousarray(np.frombuffer(data, dtype=np.uint8)[columns]).view("<u8")[:, 0]

            is_data = (values >= np.uint64(_KERNEL_BASE)) | (values < np.uint64(_PER_CPU_END))
            found_addresses.append(values[is_data])
            found_places.append(places[is_data] + begin)

        addresses, all_places = np.concatenate(found_addresses), np.concatenate(found_places)
        order = np.argsort(addresses, kind="stable")
        return addresses[order], all_places[order]

    def _numbered_places(self, address: int) -> Iterator[int]:
        """Expressions that give the address by its number in `.debug_addr`, as clang writes them."""
        addresses = self._units.sections.addresses
        if not addresses.size:
            return
        bases = sorted(self._units_by_address_base)
        for place in _places_of(addresses, address.to_bytes(8, "little")):
            base = max((base for base in bases if base <= place), default=None)
            if base is None or (place - base) % 8:
                continue
            pattern = bytes([_OP_ADDRX]) + _uleb((place - base) // 8)
            pattern = bytes([len(pattern)]) + pattern
            for offset in self._units_by_address_base[base]:
                unit = self._units.holding(offset).unit
                yield from _places_of(self._info, pattern, unit.first, unit.end)

    @functools.cached_property
    def _units_by_address_base(self) -> dict[int, list[int]]:
        self._units.sections.work.begin(self._units.sections.abbrev.size)
        found: dict[int, list[int]] = {}
        for offset in self._units.offsets:
            base = dwarf.integer(Unit(self._units.entries, offset).root, "DW_AT_addr_base")
            if base is not None:
                found.setdefault(base, []).append(offset)
        return found

    def _variable(self, unit: Unit, place: int, name: str) -> DIE | None:
        """The variable whose location is written at a place; None where that is another attribute's, or no attribute."""

        starts = self._starts(unit, place, "DW_AT_location", _BEFORE_LOCATION)
        if not starts:
            return None
        entry = unit.entry(starts[0]) if len(starts) == 1 else self._surely_at(unit, place, starts)
        return entry if entry is not None and entry.tag == dwarf.VARIABLE and unit.name_of(entry) == name else None

    # By name

    def named(self, name: str, tags: set[str]) -> Iterator[Entry]:
        """The entries of some kinds that have a name themselves, in the order of the file; not those of names up to three
        characters, which gcc writes into the entries.
        """
        for place in itertools.islice(self._places_of_name(name.encode()), MAX_TRIES):
            unit = self._units.holding(place)
            # The name is every entry's first attribute, before it stands the entry's kind alone: one to three bytes.
            starts = self._starts(unit.unit, place, "DW_AT_name", 3)
            # Four bytes that look like a reference to the name need not be one.
            entry = self._surely_at(unit.unit, place, starts) if starts else None
            if entry is not None and entry.tag in tags:
                yield Entry(unit, entry)

    def _places_of_name(self, name: bytes) -> Iterator[int]:
        """Where a reference to the name stands among the entries."""
        if not name or len(name) > MAX_NAME:
            return
        # Linkers let a string's end serve as a string of its own, so that there may be many of these.
        strings = _places_of(self._units.sections.strings, name + b"\0")[:MAX_TRIES]
        references = [place.to_bytes(4, "little") for place in strings]
        for begin, data in _windows(self._info, 3):
            for place in sorted(place for reference in references for place in _finds(data, reference)):
                yield begin + place

    # The entry around a place

    def _starts(self, unit: Unit, place: int, attribute: str, reach: int) -> list[int]:
        """Where an entry may begin that has an attribute at a place: entries have no mark of their beginning.

        Args:
            unit: it is in.
            place: of the attribute.
            attribute: its name.
            reach: how far before the place the entry may begin.
        """
        starts = range(max(place - reach, unit.first), place)
        # Bytes that are no entry may tell of blocks of gigabytes: only what leads to the place is read as one.
        return [start for start in starts if unit.would_be_at(start, attribute) == place]

    def _surely_at(self, unit: Unit, place: int, starts: list[int]) -> DIE | None:
        """The entry that a place is in, found by reading the unit up to there; None where that begins elsewhere."""
        path = unit.path_to(place)
        return path[-1] if path and path[-1].offset in starts else None


def _windows(
    section: DebugSection, overlap: int, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """A section in pieces, each with where it begins; so many bytes of the next belong to each."""
    stop = section.size if end is None else min(end, section.size)
    for begin in range(start, stop, _WINDOW):
        yield begin, section.up_to(begin, min(_WINDOW + overlap, stop - begin))


def _places_of_pair(data: bytes, pair: int) -> npt.NDArray[np.int64]:
    """Where two bytes stand together, in rising order."""
    found = [
        np.flatnonzero(np.frombuffer(data, "<u2", (len(data) - odd) // 2, odd) == pair) * 2 + odd
        for odd in (0, 1)
        if len(data) > odd + 1
    ]
    return np.sort(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _places_of(section: DebugSection, pattern: bytes, start: int = 0, end: int | None = None) -> list[int]:
    """Where some bytes stand in a section, the first `MAX_HITS` places."""
    windows = _windows(section, len(pattern) - 1, start, end)
    return list(
        itertools.islice((begin + place for begin, data in windows for place in _finds(data, pattern)), MAX_HITS)
    )


def _finds(data: bytes, pattern: bytes) -> Iterator[int]:
    """Where a pattern stands in some bytes."""
    at = data.find(pattern)
    while at >= 0:
        yield at
        at = data.find(pattern, at + 1)


def _uleb(value: int) -> bytes:
    """A number as LEB128."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
