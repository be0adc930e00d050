"""How are DWARF's numbers and strings taken from a section, without trusting their lengths?"""

from __future__ import annotations

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import U64, signed
from orcdbg.formats.elf import SHF_COMPRESSED, SHT_NOBITS, ElfFile

MAX_UNIT = 256 << 20
_STRING_STEP, MAX_STRING = 256, 1 << 16


class Cursor:
    """Reads fields of `data` from `at` on; what leaves `end` is damage."""

    def __init__(self, data: bytes, at: int, end: int, name: str) -> None:
        self.data, self.at, self.end, self.name = data, at, min(end, len(data)), name

    def take(self, size: int) -> bytes:
        """The next bytes."""
        start, self.at = self.at, self.at + size
        if self.at > self.end:
            raise UnsupportedFormat(self.name, f"an entry is cut off at offset {start:#x}")
        return self.data[start : self.at]

    def fixed(self, size: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size), "little")

    def uleb(self) -> int:
        """An unsigned LEB128 number of at most 64 bits."""
        value = shift = 0
        while shift < 70:
            byte = self.fixed(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value & U64
        raise UnsupportedFormat(self.name, f"a number of more than 64 bits at offset {self.at:#x}")

    def sleb(self) -> int:
        """A signed LEB128 number."""
        start = self.at
        value = self.uleb()
        return signed(value, min(7 * (self.at - start), 64))

    def string(self) -> bytes:
        """Bytes up to a NUL."""
        end = self.data.find(b"\0", self.at, self.end)
        if end < 0:
            raise UnsupportedFormat(self.name, f"a string without an end at offset {self.at:#x}")
        start, self.at = self.at, end + 1
        return self.data[start:end]


class DebugSection:
    """A section that is read in pieces: those of a kernel have hundreds of megabytes.

    Raises:
        UnsupportedFormat: from `read`, for a piece that leaves the section, or a section that is packed.
    """

    def __init__(self, elf: ElfFile, name: str) -> None:
        section = elf.by_name.get(name)
        self.name = f"{elf.source.name}: {name}"
        self.is_packed = section is not None and bool(section.flags & SHF_COMPRESSED)
        present = section is not None and section.type != SHT_NOBITS and not self.is_packed
        self._source = elf.source
        self._offset = section.offset if section is not None else 0
        self.size = section.size if section is not None and present else 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at an offset."""
        if self.is_packed:
            raise UnsupportedFormat(self.name, "the section is compressed")
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
