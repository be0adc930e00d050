"""How are the debug sections of a file read in pieces, packed ones too, and how much work may one question cost?"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import BytesSource, unpack
from orcdbg.formats import codecs
from orcdbg.formats.elf import SHF_COMPRESSED, SHT_NOBITS, ElfFile, Section

_CHDR, _ZDEBUG = struct.Struct("<IIQQ"), struct.Struct(">IQ")
_ZLIB, _ZSTD = 1, 2
_OLD_MAGIC = int.from_bytes(b"ZLIB", "big")
MAX_UNIT = 256 << 20
_STRING_STEP, MAX_STRING = 256, 1 << 16
MAX_WORK = 1 << 20  # entries, attributes, and pieces of strings; of a kernel's units the largest needs 510,000


Relocate = Callable[[Section, bytes], bytes]


class _Packed(NamedTuple):
    """Where a section's packed data are in the file, and how many bytes its header says they hold."""

    kind: int
    offset: int
    size: int
    unpacked: int


class Work:
    """How much may still be done for one question: entries can be made to stand in each other, or for each other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = MAX_WORK

    def begin(self, more: int = 0) -> None:
        """A new question, which may need `more` than others."""
        self._left = MAX_WORK + more

    def spend(self, steps: int) -> None:
        """Counts what is done; UnsupportedFormat where it is more than any real file needs."""
        self._left -= steps
        if self._left < 0:
            raise UnsupportedFormat(self._name, "entries that stand for each other without end")


class DebugSection:
    """A section that is read in pieces: those of a kernel have hundreds of megabytes.

    One that is packed (SHF_COMPRESSED, or `.zdebug_`) is unpacked whole when it is first read; so is one of a file that is not
    linked, which `relocate` links.

    Raises:
        UnsupportedFormat: a header that is damaged; from `read`, a piece that leaves the section, or packed data that do
            not unpack to what the header says.
    """

    def __init__(self, elf: ElfFile, name: str, relocate: Relocate | None = None) -> None:
        old = elf.by_name.get(name.replace(".debug_", ".zdebug_"))
        found = elf.by_name.get(name) or old
        self.name = f"{elf.source.name}: {name}"
        self._source = elf.source
        self._offset = self.size = 0
        self._packed: _Packed | None = None
        self._section = found
        self._relocate = relocate
        if found is None or found.type == SHT_NOBITS:
            return
        self._offset, self.size = found.offset, found.size
        if found is old or found.flags & SHF_COMPRESSED:
            self._packed = self._old_header(found) if found is old else self._header(found)
            self.size = self._packed.unpacked

    def _header(self, section: Section) -> _Packed:
        """The gABI's Elf64_Chdr before the packed data."""
        kind, _, size, _ = unpack(self._source, section.offset, _CHDR)
        if kind not in (_ZLIB, _ZSTD):
            raise UnsupportedFormat(self.name, f"compressed in a way not known: {kind}")
        return _Packed(kind, section.offset + _CHDR.size, max(section.size - _CHDR.size, 0), size)

    def _old_header(self, section: Section) -> _Packed:
        """That of GNU tools before: the word ZLIB, and the size in the other byte order."""
        magic, size = unpack(self._source, section.offset, _ZDEBUG)
        if magic != _OLD_MAGIC:
            raise UnsupportedFormat(self.name, "a .zdebug section that is not by zlib")
        return _Packed(_ZLIB, section.offset + _ZDEBUG.size, max(section.size - _ZDEBUG.size, 0), size)

    def _unpack(self, packed: _Packed) -> None:
        if packed.size > codecs.MAX_INPUT:
            raise UnsupportedFormat(self.name, f"{packed.size} bytes of compressed data")
        data = self._source.read_at(packed.offset, packed.size)
        unpacked = codecs.unpacked_zlib if packed.kind == _ZLIB else codecs.unpacked_zstd
        self._source, self._offset = unpacked(self.name, data, packed.unpacked), 0
        self._packed = None

    def _link(self, relocate: Relocate, section: Section) -> None:
        """Puts the addresses into the bytes of a file that is not linked."""
        self._relocate = None
        if self.size > MAX_UNIT:
            raise UnsupportedFormat(self.name, f"{self.size} bytes of a file that is not linked")
        linked = relocate(section, self._source.read_at(self._offset, self.size))
        self._source, self._offset = BytesSource(self.name, linked), 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at an offset."""
        if self._packed is not None:
            self._unpack(self._packed)
        if self._relocate is not None and self._section is not None:
            self._link(self._relocate, self._section)
        if offset < 0 or size < 0 or offset + size > self.size or size > MAX_UNIT:
            raise UnsupportedFormat(self.name, f"{size} bytes at offset {offset:#x} of {self.size:#x}")
        return self._source.read_at(self._offset + offset, size)

    def up_to(self, offset: int, size: int) -> bytes:
        """At most `size` bytes at an offset, fewer at the section's end."""
        return self.read(offset, max(min(size, self.size - offset), 0))

    def string(self, offset: int) -> bytes:
        """The bytes at an offset up to a NUL."""
        found = b""
        while len(found) < MAX_STRING:
            piece = self.up_to(offset + len(found), _STRING_STEP)
            end = piece.find(b"\0")
            if end >= 0:
                return found + piece[:end]
            if not piece:
                break
            found += piece
        raise UnsupportedFormat(self.name, f"a string without an end at offset {offset:#x}")


class DebugSections:
    """The sections that a file's DWARF is in, and the work that one question may still cost.

    Args:
        elf: the file.
        relocate: links the bytes of a section, where the file is not linked.
    """

    def __init__(self, elf: ElfFile, relocate: Relocate | None = None) -> None:
        self.info = DebugSection(elf, ".debug_info", relocate)
        self.abbrev = DebugSection(elf, ".debug_abbrev", relocate)
        self.strings = DebugSection(elf, ".debug_str", relocate)
        self.line_strings = DebugSection(elf, ".debug_line_str", relocate)
        self.string_offsets = DebugSection(elf, ".debug_str_offsets", relocate)
        self.addresses = DebugSection(elf, ".debug_addr", relocate)
        self.ranges = DebugSection(elf, ".debug_ranges", relocate)
        self.range_lists = DebugSection(elf, ".debug_rnglists", relocate)
        self.locations = DebugSection(elf, ".debug_loc", relocate)
        self.location_lists = DebugSection(elf, ".debug_loclists", relocate)
        self.lines = DebugSection(elf, ".debug_line", relocate)
        self.aranges = DebugSection(elf, ".debug_aranges", relocate)
        self.work = Work(elf.source.name)
