"""DWARF made by code: one unit with a function, a function inlined into it, and one inlined into that."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.build.elf import Part, image

TEXT = 0xFFFF_FFFF_8100_0000
SIZE = 0x100
# [start, end) of what is inlined, from TEXT on: `middle` in the function, `inner` in `middle`.
MIDDLE, INNER = (0x20, 0x60), (0x30, 0x40)
_STRINGS = b"\0outer\0middle\0inner\0made.c\0include/made.h\0build\0"


def uleb(value: int) -> bytes:
    """An unsigned LEB128 number."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def text_at(text: str) -> bytes:
    """A string's offset in `.debug_str`, as a field."""
    return struct.pack("<I", _STRINGS.index(b"\0" + text.encode() + b"\0") + 1)


def _abbreviation(code: int, tag: int, children: bool, *attributes: tuple[int, int]) -> bytes:
    fields = b"".join(uleb(attribute) + uleb(form) for attribute, form in attributes)
    return uleb(code) + uleb(tag) + bytes([children]) + fields + b"\0\0"


_STRP, _ADDR, _DATA8, _OFFSET, _REF4, _DATA1, _EXPRLOC = 0x0E, 0x01, 0x07, 0x17, 0x13, 0x0B, 0x18
_NAME, _DIRECTORY, _PROGRAM, _LOW, _HIGH, _RANGES = 0x03, 0x1B, 0x10, 0x11, 0x12, 0x55
_SIBLING, _ORIGIN, _CALL_FILE, _CALL_LINE, _LOCATION = 0x01, 0x31, 0x58, 0x59, 0x02
_FILE, _LINE = 0x3A, 0x3B
DECLARED = 9  # the line that names the function
_ABBREVIATIONS = (
    _abbreviation(1, 0x11, True, (_NAME, _STRP), (_DIRECTORY, _STRP), (_PROGRAM, _OFFSET), (_LOW, _ADDR), (_HIGH, _DATA8))
    + _abbreviation(2, 0x2E, False, (_NAME, _STRP))  # an abstract function
    + _abbreviation(3, 0x2E, True, (_NAME, _STRP), (_FILE, _DATA1), (_LINE, _DATA1), (_LOW, _ADDR), (_HIGH, _DATA8))
    + _abbreviation(4, 0x0B, True, (_SIBLING, _REF4))  # a block without code of its own
    + _abbreviation(5, 0x1D, True, (_ORIGIN, _REF4), (_RANGES, _OFFSET), (_CALL_FILE, _DATA1), (_CALL_LINE, _DATA1))
    + _abbreviation(6, 0x1D, False, (_ORIGIN, _REF4), (_LOW, _ADDR), (_HIGH, _ADDR), (_CALL_FILE, _DATA1), (_CALL_LINE, _DATA1))
    + _abbreviation(7, 0x34, False, (_LOCATION, _EXPRLOC))  # a variable, of no fixed size
    + b"\0"
)  # fmt: skip


def _place(offset: int) -> bytes:
    return struct.pack("<Q", TEXT + offset)


@dataclass
class _Entries:
    """A unit's entries as they are written, behind its header of `head` bytes."""

    head: int
    data: bytes = b""
    at: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, data: bytes) -> None:
        """One entry."""
        self.at[name] = self.head + len(self.data)
        self.data += data

    def reference(self, name: str) -> bytes:
        """An entry's offset, as a field."""
        return struct.pack("<I", self.at[name])


def _info(version: int) -> bytes:
    head = 12 if version == 5 else 11
    entries = _Entries(head)
    entries.add("unit", b"\x01" + text_at("made.c") + text_at("build") + bytes(4) + _place(0) + struct.pack("<Q", SIZE))
    entries.add("middle", b"\x02" + text_at("middle"))
    entries.add("inner", b"\x02" + text_at("inner"))
    entries.add("outer", b"\x03" + text_at("outer") + bytes([1, DECLARED]) + _place(0) + struct.pack("<Q", SIZE))
    entries.add("variable", b"\x07" + uleb(3) + b"\x91\x00\x96")
    block = entries.head + len(entries.data)
    inlined = b"\x05" + entries.reference("middle") + bytes(4) + bytes([1, 11])
    deeper = b"\x06" + entries.reference("inner") + _place(INNER[0]) + _place(INNER[1]) + bytes([2, 22])
    after = block + 5 + len(inlined) + len(deeper) + 2
    entries.add("block", b"\x04" + struct.pack("<I", after))
    entries.add("inlined", inlined)
    entries.add("deeper", deeper + b"\0" + b"\0" + b"\0" + b"\0")
    body = struct.pack("<HBBI", 5, 1, 8, 0) if version == 5 else struct.pack("<HIB", version, 0, 8)
    body += entries.data
    return struct.pack("<I", len(body)) + body


def _program() -> bytes:
    """Line 10 at the start, 22 of the header in `middle`, 33 in `inner`, 23, and 12 to the end."""
    rows = b"\0\x09\x02" + _place(0)
    at, line = 0, 1
    for offset, file, wanted in ((0, 1, 10), (0x20, 2, 22), (0x30, 2, 33), (0x40, 2, 23), (0x60, 1, 12)):
        rows += b"\x02" + uleb(offset - at) + b"\x04" + uleb(file) + b"\x03" + bytes([(wanted - line) & 127]) + b"\x01"
        at, line = offset, wanted
    return rows + b"\x02" + uleb(SIZE - at) + b"\0\x01\x01"


def _lines(version: int) -> bytes:
    """A line program; file 1 is made.c, file 2 include/made.h."""
    fixed = bytes([1, 1, 1, 251, 14, 13]) + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    fixed = fixed if version >= 4 else fixed[:1] + fixed[2:]
    if version == 5:
        names = b"\x01\x01\x08" + uleb(2) + b"build\0include\0"
        names += b"\x02\x01\x08\x02\x0b" + uleb(3) + b"made.c\0\0" + b"made.c\0\0" + b"made.h\0\x01"
        head = struct.pack("<HBBI", 5, 8, 0, len(fixed + names)) + fixed + names
    else:
        names = b"include\0\0" + b"made.c\0" + bytes(3) + b"made.h\0" + b"\x01\0\0" + b"\0"
        head = struct.pack("<HI", version, len(fixed + names)) + fixed + names
    body = head + _program()
    return struct.pack("<I", len(body)) + body


def _ranges(version: int) -> bytes:
    if version == 5:
        return b"\x05" + _place(0) + b"\x04" + uleb(MIDDLE[0]) + uleb(MIDDLE[1]) + b"\0"
    base = struct.pack("<QQ", (1 << 64) - 1, TEXT)
    return base + struct.pack("<QQ", *MIDDLE) + bytes(16)


def debug_sections(version: int) -> dict[str, bytes]:
    """The sections of the unit, in a version of DWARF."""
    aranges = struct.pack("<HIBB4xQQQQ", 2, 0, 8, 0, TEXT, SIZE, 0, 0)
    return {
        ".debug_info": _info(version),
        ".debug_abbrev": _ABBREVIATIONS,
        ".debug_str": _STRINGS,
        ".debug_line": _lines(version),
        ".debug_rnglists" if version == 5 else ".debug_ranges": _ranges(version),
        ".debug_aranges": struct.pack("<I", len(aranges)) + aranges,
    }


def image_with(sections: dict[str, bytes]) -> bytes:
    """An ELF file of text and these sections."""
    parts = [Part(".text", TEXT, b"\x90" * SIZE, flags=6)]
    return image(parts + [Part(name, 0, data, flags=0) for name, data in sections.items()])
