"""Which source file and line does each instruction of one compile unit come from?

DWARF 2 to 5, section 6.2. The line program is run as a whole once and kept as columns sorted by address.
"""

from __future__ import annotations

import posixpath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.base.sizes import U64
from orcdbg.formats.dwarf_cursor import Cursor
from orcdbg.formats.dwarf_sections import DebugSections

MAX_FILES, MAX_PROGRAM = 1 << 16, 4 << 20  # a row is a byte of program at least; real units have to 420,000
_PATH, _DIRECTORY = 1, 2
_STRINGS = {0x08: "inline", 0x0E: "strings", 0x1F: "line_strings"}
_NUMBERS = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}
_UDATA, _BLOCK = 0x0F, 0x09


class SourceLine(NamedTuple):
    """A place in the source: a path as the compiler was given it, shortened to the source tree; and a line."""

    file: str
    line: int


class _Header(NamedTuple):
    version: int
    instruction_size: int
    line_base: int
    line_range: int
    lengths: tuple[int, ...]  # of standard opcodes, from opcode 1 on
    directories: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    end: int


class LineTable:
    """The lines of one unit.

    Args:
        sections: the file's.
        offset: of the unit's program in `.debug_line`.
        directory: the unit's compilation directory.

    Raises:
        UnsupportedFormat: it is damaged, or of a form not read.
    """

    def __init__(self, sections: DebugSections, offset: int, directory: str) -> None:
        section = sections.lines
        length = int.from_bytes(section.read(offset, 4), "little")
        if length >= 0xFFFF_FFF0:
            raise UnsupportedFormat(section.name, f"64-bit DWARF at offset {offset:#x}")
        if length > MAX_PROGRAM:
            raise UnsupportedFormat(section.name, f"a line program of {length} bytes")
        data = section.read(offset, length + 4)
        cursor = Cursor(data, 4, len(data), section.name)
        self._header = _header(cursor, sections)
        self._directory = directory
        cursor.at = self._header.end
        self._addresses, self._places = _run(cursor, self._header)

    def at(self, address: int) -> SourceLine | None:
        """The line of the instruction at a link address; None where the program says nothing of it."""
        index = int(np.searchsorted(self._addresses, np.uint64(address & U64), side="right")) - 1
        if index < 0:
            return None
        file, line = (int(value) for value in self._places[index])
        return None if file < 0 or line == 0 else SourceLine(self.file(file) or "?", line)

    def file(self, number: int) -> str | None:
        """A file by the number that line programs and entries use; None for one that is not there."""
        index = number if self._header.version >= 5 else number - 1
        if not 0 <= index < len(self._header.files):
            return None
        name, directory = self._header.files[index]
        return _shortened(posixpath.join(self._folder(directory), name), self._directory)

    def _folder(self, number: int) -> str:
        """A directory by number; the compilation directory is left out, paths in it are relative."""
        if number == 0:
            return ""
        index = number if self._header.version >= 5 else number - 1
        return self._header.directories[index] if 0 <= index < len(self._header.directories) else ""


def _shortened(path: str, directory: str) -> str:
    """A path from the top of the source tree on, as far as it can be told from the compilation directory."""
    found = posixpath.normpath(path)
    if found.startswith("/") and directory.startswith("/"):
        common = posixpath.commonpath([found, posixpath.normpath(directory)])
        if common.count("/") > 1:
            return posixpath.relpath(found, common)
    while found.startswith("../"):
        found = found[3:]
    return found


def _header(cursor: Cursor, sections: DebugSections) -> _Header:
    version = cursor.fixed(2)
    if not 2 <= version <= 5:
        raise UnsupportedFormat(cursor.name, f"a line program of version {version}")
    if version == 5 and cursor.take(2) != b"\x08\0":
        raise UnsupportedFormat(cursor.name, "a line program that is not for 64 bits")
    size = cursor.fixed(4)
    end = cursor.at + size
    instruction_size = cursor.fixed(1)
    if version >= 4:
        cursor.take(1)  # operations per instruction: 1
    cursor.take(1)  # is_stmt at first
    line_base, line_range = signed(cursor.fixed(1), 8), cursor.fixed(1)
    lengths = tuple(cursor.take(max(cursor.fixed(1) - 1, 0)))
    if not line_range:
        raise UnsupportedFormat(cursor.name, "a line program without a range of lines")
    if version == 5:
        directories = tuple(name for name, _ in _table(cursor, sections))
        files = tuple(_table(cursor, sections))
    else:
        directories, files = _old_tables(cursor)
    return _Header(version, instruction_size, line_base, line_range, lengths, directories, files, end)


def _old_tables(cursor: Cursor) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
    directories: list[str] = []
    files: list[tuple[str, int]] = []
    while (name := cursor.string()) and len(directories) < MAX_FILES:
        directories.append(name.decode("utf-8", "replace"))
    while (name := cursor.string()) and len(files) < MAX_FILES:
        directory, _, _ = cursor.uleb(), cursor.uleb(), cursor.uleb()
        files.append((name.decode("utf-8", "replace"), directory))
    return tuple(directories), tuple(files)


def _table(cursor: Cursor, sections: DebugSections) -> list[tuple[str, int]]:
    """Names with their directory's number, of a table of version 5."""
    formats = [(cursor.uleb(), cursor.uleb()) for _ in range(cursor.fixed(1))]
    count = cursor.uleb()
    if count > MAX_FILES or (not formats and count):
        raise UnsupportedFormat(cursor.name, f"a line program with {count} files")
    found = []
    for _ in range(count):
        name, directory = "?", 0
        for content, form in formats:
            value = _field(cursor, form, sections)
            sections.work.spend(1 + (len(value) >> 6 if isinstance(value, bytes) else 0))
            if content == _PATH and isinstance(value, bytes):
                name = value.decode("utf-8", "replace")
            elif content == _DIRECTORY and isinstance(value, int):
                directory = value
        found.append((name, directory))
    return found


def _field(cursor: Cursor, form: int, sections: DebugSections) -> int | bytes:
    where = _STRINGS.get(form)
    if where == "inline":
        return cursor.string()
    if where is not None:
        section = sections.strings if where == "strings" else sections.line_strings
        return section.string(cursor.fixed(4))
    if form in _NUMBERS:
        return cursor.fixed(_NUMBERS[form])
    if form == _UDATA:
        return cursor.uleb()
    if form == _BLOCK:
        return len(cursor.take(cursor.uleb()))
    raise UnsupportedFormat(cursor.name, f"form {form:#x} in a table of files")


class _Rows:
    """Rows as they are emitted; a sequence's end is a row without a file."""

    def __init__(self) -> None:
        self.addresses: list[int] = []
        self.files: list[int] = []
        self.lines: list[int] = []

    def drop(self) -> None:
        """Takes the last row back."""
        for column in (self.addresses, self.files, self.lines):
            column.pop()

    def add(self, address: int, file: int, line: int) -> None:
        """One row."""
        self.addresses.append(address & U64)
        self.files.append(file)
        self.lines.append(line)


def _run(cursor: Cursor, header: _Header) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Addresses in rising order, and file and line of each."""
    rows = _Rows()
    while cursor.at < cursor.end:
        _sequence(cursor, header, rows)
    addresses = np.array(rows.addresses, dtype=np.uint64)
    # The end of one sequence may be the beginning of the next: ends go first among equals.
    is_end = np.array(rows.files, dtype=np.int64) < 0
    order = np.lexsort((np.arange(len(addresses)), ~is_end, addresses))
    places = np.stack([np.array(rows.files, dtype=np.int64), np.array(rows.lines, dtype=np.int64)], axis=1)
    return addresses[order], places[order]


def _sequence(cursor: Cursor, header: _Header, rows: _Rows) -> None:  # noqa: C901  calls would cost more than the loop
    """One sequence, to its end. Local names throughout: this loop runs for every instruction of a unit."""
    data, end, at = cursor.data, cursor.end, cursor.at
    base, line_range, step = header.line_base, header.line_range, header.instruction_size
    first_special = len(header.lengths) + 1
    address, file, line = 0, 1, 1
    addresses, files, lines = rows.addresses, rows.files, rows.lines
    begin = len(addresses)
    while at < end:
        opcode = data[at]
        at += 1
        if opcode >= first_special:
            opcode -= first_special
            address += opcode // line_range * step
            line += base + opcode % line_range
            addresses.append(address & U64)
            files.append(file)
            lines.append(line)
            continue
        cursor.at = at
        if opcode == 0:
            size = cursor.uleb()
            body = cursor.take(size)
            if body[:1] == b"\x01":
                while len(addresses) > begin and addresses[-1] == address & U64:
                    rows.drop()  # rows at the end itself are of no instruction
                rows.add(address, -1, 0)
                return
            if body[:1] == b"\x02":
                address = int.from_bytes(body[1:9], "little")
        elif opcode == 1:
            rows.add(address, file, line)
        elif opcode == 2:
            address += cursor.uleb() * step
        elif opcode == 3:
            line += cursor.sleb()
        elif opcode == 4:
            file = cursor.uleb() & 0xFFFF_FFFF
        elif opcode == 8:
            address += (255 - first_special) // line_range * step
        elif opcode == 9:
            address += cursor.fixed(2)
        elif opcode not in (6, 7, 10, 11):
            for _ in range(header.lengths[opcode - 1]):
                cursor.uleb()
        if not -(1 << 40) < line < 1 << 40:
            raise UnsupportedFormat(cursor.name, "a line number beyond every source")
        at = cursor.at
    cursor.at = at
