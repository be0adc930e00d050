"""What do an ELF file's headers, section names, segments and notes say?

Only 64-bit little-endian ELF, as every x86-64 kernel and core is. The readers are small and bounded because the files
are hostile input, and our own because a debugger's first answer would otherwise wait for a library import that takes
longer than the whole of this module's work (see docs/adr/0002-own-elf-headers.md).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource, BytesSource, unpack
from orcdbg.base.walks import Budget

MAGIC = b"\x7fELF"
ET_CORE, ET_EXEC, ET_DYN, ET_REL = 4, 2, 3, 1
EM_X86_64 = 62
PT_LOAD, PT_NOTE = 1, 4
# What a driver dumped of its device (fs/proc/vmcore.c, 4.18): the driver's own, and of any size. No other note has this number.
NT_VMCOREDD = 0x700
SHT_NOBITS = 8
SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 2, 4, 0x800
PN_XNUM = 0xFFFF
# makedumpfile begins a segment behind each MiB that it leaves out; a section takes more memory than a segment.
MAX_SEGMENTS, MAX_SECTIONS = 1 << 20, 1 << 18
MAX_NOTES, MAX_NOTE_COUNT = 64 << 20, 1 << 19
MAX_SECTION, MAX_NAME = 512 << 20, 4096

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_PHDR = struct.Struct("<IIQQQQQQ")
_NHDR = struct.Struct("<III")


class Section(NamedTuple):
    """One section header: `address` and `size` in bytes as linked, `offset` in the file."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    entry_size: int

    @property
    def end(self) -> int:
        """First address after the section."""
        return self.address + self.size

    @property
    def file_end(self) -> int:
        """First offset after the section's bytes in the file."""
        return self.offset if self.type == SHT_NOBITS else self.offset + self.size


class Segment(NamedTuple):
    """One program header."""

    type: int
    flags: int
    offset: int
    virtual: int
    physical: int
    file_size: int
    memory_size: int


class Note(NamedTuple):
    """One ELF note."""

    name: str
    type: int
    data: bytes


def is_core(head: bytes) -> bool:
    """Whether a file that begins so is an ELF core: e_type is ET_CORE.

    Args:
        head: its first bytes, 18 of them or more; a shorter file is no core.
    """
    return head.startswith(MAGIC) and head[16:18] == ET_CORE.to_bytes(2, "little")


class ElfFile:
    """Headers of one ELF file.

    Raises:
        UnsupportedFormat: not an x86-64 ELF file, or its tables leave the file.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        if source.size < _EHDR.size:
            raise UnsupportedFormat(source.name, f"not an ELF file: {source.size} bytes are too few for a header")
        fields = _EHDR.unpack(source.read_at(0, _EHDR.size))
        ident = fields[0]
        if ident[:4] != MAGIC:
            raise UnsupportedFormat(source.name, "not an ELF file")
        if ident[4] != 2 or ident[5] != 1 or fields[2] != EM_X86_64:
            raise UnsupportedFormat(source.name, "an ELF file, but not for x86-64 (64-bit, little-endian)")
        self.type: int = fields[1]
        self.entry: int = fields[4]
        self._phoff, self._shoff = fields[5], fields[6]
        self._phentsize, self._phnum = fields[9], fields[10]
        self._shentsize, self._shnum, self._shstrndx = fields[11], fields[12], fields[13]

    def _table(self, what: str, offset: int, entry_size: int, layout: struct.Struct, count: int) -> bytes:
        limit = MAX_SEGMENTS if layout is _PHDR else MAX_SECTIONS
        if count > limit or (count and entry_size != layout.size):
            raise UnsupportedFormat(self.source.name, f"{what} headers: {count} entries of {entry_size} bytes")
        try:
            return self.source.read_at(offset, count * layout.size)
        except UnsupportedFormat as error:
            raise UnsupportedFormat(self.source.name, f"{what} headers are cut off: {error.what}") from error

    def _first_section(self) -> tuple[int, ...]:
        """Section 0, which holds the counts that do not fit the file header."""
        return unpack(self.source, self._shoff, _SHDR)

    @functools.cached_property
    def segments(self) -> list[Segment]:
        """All program headers, in file order."""
        count = self._first_section()[7] if self._phnum == PN_XNUM and self._shoff else self._phnum
        table = self._table("program", self._phoff, self._phentsize, _PHDR, count)
        return [Segment(t, f, o, v, p, fs, ms) for t, f, o, v, p, fs, ms, _ in _PHDR.iter_unpack(table)]

    @functools.cached_property
    def sections(self) -> list[Section]:
        """All section headers, in file order, with names."""
        if not self._shoff:
            return []
        count, names_index = self._shnum, self._shstrndx
        if count == 0 or names_index == PN_XNUM:
            first = self._first_section()
            count, names_index = count or first[5], first[6] if names_index == PN_XNUM else names_index
        table = self._table("section", self._shoff, self._shentsize, _SHDR, count)
        raw = list(_SHDR.iter_unpack(table))
        if names_index >= len(raw):
            raise UnsupportedFormat(self.source.name, f"section names are in section {names_index} of {len(raw)}")
        names = self.source.read_at(raw[names_index][4], min(raw[names_index][5], MAX_NOTES))
        return [
            Section(self._name_at(names, n), t, f, a, o, s, link, info, es)
            for n, t, f, a, o, s, link, info, _, es in raw
        ]

    def _name_at(self, strings: bytes, offset: int) -> str:
        """A section's name; empty where it leaves the table."""
        end = strings.find(b"\0", offset, offset + MAX_NAME)
        if end < 0 and offset + MAX_NAME <= len(strings):
            raise UnsupportedFormat(self.source.name, f"a section's name of more than {MAX_NAME} bytes")
        return strings[offset : max(end, offset)].decode("ascii", "replace")

    @property
    def header_areas(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """[start, end) in the file of its own header, and of the program headers."""
        return (0, _EHDR.size), (self._phoff, self._phoff + len(self.segments) * _PHDR.size)

    @property
    def headers_end(self) -> int:
        """First offset after the file's own header and both tables of headers."""
        programs: int = self._phoff + len(self.segments) * _PHDR.size
        sections: int = self._shoff + len(self.sections) * _SHDR.size
        return max(_EHDR.size, programs, sections)

    @functools.cached_property
    def by_name(self) -> dict[str, Section]:
        """Sections by name; of equal names the first."""
        found: dict[str, Section] = {}
        for section in self.sections:
            found.setdefault(section.name, section)
        return found

    def data(self, section: Section) -> bytes:
        """The section's bytes as they are in the file; zeros for one without contents.

        Raises:
            UnsupportedFormat: they leave the file, or are more than any section has.
        """
        if section.size > MAX_SECTION:
            raise UnsupportedFormat(self.source.name, f"section {section.name} of {section.size} bytes")
        if section.type == SHT_NOBITS:
            return bytes(min(section.size, MAX_NOTES))
        return self.source.read_at(section.offset, section.size)

    @property
    def has_code(self) -> bool:
        """False of a file whose sections of code have no contents (objcopy --only-keep-debug)."""
        code = [section for section in self.sections if section.flags & SHF_EXECINSTR and section.size]
        return not code or any(section.type != SHT_NOBITS for section in code)

    def notes(self) -> Iterator[Note]:
        """All notes of the PT_NOTE segments, but for the large ones that `stored_notes` leaves out."""
        budget = Budget(MAX_NOTE_COUNT, MAX_NOTES)
        for segment in self.segments:
            if segment.type == PT_NOTE:
                yield from stored_notes(self.source, segment.offset, segment.file_size, budget)


def stored_notes(source: ByteSource, offset: int, size: int, budget: Budget) -> Iterator[Note]:
    """The notes of an area of a file, note by note: what a driver dumped of its device may be gigabytes.

    Args:
        source: the file.
        offset: where the area is in it.
        size: its bytes.
        budget: of notes and their bytes; a note with more than is left is left out.

    Raises:
        UnsupportedFormat: the area, or a note, leaves the file or the area; or there are too many notes.
    """
    if offset + size > source.size:
        raise UnsupportedFormat(source.name, f"truncated: notes at {offset:#x} end behind the file's {source.size:#x}")
    for head in _note_heads(source, offset, offset + size, budget):
        if head.name_size > MAX_NAME or head.data_size > budget.size_left or head.type == NT_VMCOREDD:
            continue
        budget.size_left -= head.data_size
        yield head.note(source)


def parse_notes(data: bytes, name: str) -> Iterator[Note]:
    """The notes in `data`, a PT_NOTE segment or a note section with 4-byte alignment.

    Raises:
        UnsupportedFormat: a note's sizes leave the data, or there are too many.
    """
    source = BytesSource(name, data)
    for head in _note_heads(source, 0, len(data), Budget(MAX_NOTE_COUNT)):
        yield head.note(source)


class _NoteHead(NamedTuple):
    """A note whose contents have not been read."""

    type: int
    name_start: int
    name_size: int
    data_start: int
    data_size: int

    def note(self, source: ByteSource) -> Note:
        """The note itself."""
        owner = source.read_at(self.name_start, self.name_size).rstrip(b"\0").decode("ascii", "replace")
        return Note(owner, self.type, source.read_at(self.data_start, self.data_size))


def _note_heads(source: ByteSource, offset: int, end: int, budget: Budget) -> Iterator[_NoteHead]:
    while offset + _NHDR.size <= end:
        name_size, data_size, note_type = _NHDR.unpack(source.read_at(offset, _NHDR.size))
        name_start = offset + _NHDR.size
        if not budget.take("notes", offset):
            raise UnsupportedFormat(source.name, f"more than {budget.limit} notes")
        data_start = name_start + (name_size + 3 & ~3)
        offset = data_start + (data_size + 3 & ~3)
        if name_size == data_size == note_type == 0:  # zero padding up to the segment's end
            continue
        if data_start + data_size > end:
            raise UnsupportedFormat(source.name, f"a note of {data_size} bytes leaves its segment")
        yield _NoteHead(note_type, name_start, name_size, data_start, data_size)
