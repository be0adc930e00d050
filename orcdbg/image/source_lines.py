"""Which source line, through which inlined functions, does a link address come from, by the image's DWARF?

Only the unit that holds the address is read, and of its entries only the one function's. Nothing is read before the first
question; a unit that was read is kept for the next.
"""

from __future__ import annotations

import functools

from elftools.dwarf.die import DIE

from orcdbg.formats import dwarf_entries as dwarf
from orcdbg.formats.dwarf_lines import LineTable, SourceLine
from orcdbg.formats.elf import ElfFile
from orcdbg.image.compile_units import CompileUnit, CompileUnits
from orcdbg.image.source_position import Inlined, Position


class SourceLines:
    """The line information of one image, in the file that has its DWARF; None is one without."""

    def __init__(self, elf: ElfFile | None, units: CompileUnits | None = None) -> None:
        self._elf = elf
        self._units = units

    @functools.cached_property
    def units(self) -> CompileUnits:
        """The file's units."""
        assert self._elf is not None
        return CompileUnits(self._elf) if self._units is None else self._units

    @property
    def is_there(self) -> bool:
        """True for an image with DWARF; UnsupportedFormat where that has a damaged header."""
        return self._elf is not None and bool(self.units.sections.info.size and self.units.sections.lines.size)

    def at(self, address: int) -> Position | None:
        """The source position of a link address; None where the image does not say.

        Raises:
            UnsupportedFormat: the information is damaged, or of a form not read.
        """
        unit = self.units.at(address)
        if unit is None or unit.lines is None:
            return None
        line = unit.lines.at(address)
        return _position(unit, unit.lines, line, unit.inlined(address))

    def declared_at(self, address: int) -> tuple[str, SourceLine] | None:
        """The name of the function that a link address is in, not of one inlined there, and where the source declares it."""
        unit = self.units.at(address)
        if unit is None or unit.lines is None:
            return None
        function = unit.function(address)
        if function is None:
            return None
        for account in unit.unit.accounts_of(function):
            place = _place(unit.lines, account, "DW_AT_decl_file", "DW_AT_decl_line")
            if place is not None:
                return unit.unit.name_of(function) or "?", place
        return None


def _position(unit: CompileUnit, lines: LineTable, line: SourceLine | None, chain: list[DIE]) -> Position:
    """The address's own line is the innermost function's; each other is where it called the next."""
    inlined: list[Inlined] = []
    here = line
    for entry in reversed(chain):
        inlined.append(Inlined(unit.unit.name_of(entry) or "?", here))
        here = _call_site(lines, entry)
    return Position(line, tuple(inlined), here)


def _call_site(lines: LineTable, entry: DIE) -> SourceLine | None:
    return _place(lines, entry, "DW_AT_call_file", "DW_AT_call_line")


def _place(lines: LineTable, entry: DIE, file_attribute: str, line_attribute: str) -> SourceLine | None:
    file, line = dwarf.integer(entry, file_attribute), dwarf.integer(entry, line_attribute)
    if file is None or line is None:
        return None
    name = lines.file(file)
    return None if name is None else SourceLine(name, line)
