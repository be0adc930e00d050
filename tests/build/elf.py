"""ELF files made by code: cores with chosen memory, notes and sections, so that a test says exactly which byte is wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from orcdbg.base.sizes import PAGE

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
SHDR = struct.Struct("<IIQQQQIIQQ")
IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")


class Load(NamedTuple):
    """A PT_LOAD: physical address and contents."""

    physical: int
    data: bytes
    virtual: int = 0


class Part(NamedTuple):
    """A section: name, link address, contents, and header fields."""

    name: str
    address: int
    data: bytes
    type: int = 1
    flags: int = 2
    link: int = 0


def note(name: str, kind: int, data: bytes) -> bytes:
    """One ELF note."""
    owner = name.encode() + b"\0"
    padded = owner + bytes(-len(owner) % 4), data + bytes(-len(data) % 4)
    return struct.pack("<III", len(owner), len(data), kind) + b"".join(padded)


def prstatus(registers: dict[str, int], pid: int) -> bytes:
    """An NT_PRSTATUS note with these registers, named as in gdb."""
    from orcdbg.formats.core_notes import PR_REG_NAMES

    values = struct.pack("<27Q", *(registers.get(name, 0) for name in PR_REG_NAMES))
    body = bytes(32) + pid.to_bytes(4, "little") + bytes(76) + values
    return note("CORE", 1, body.ljust(336, b"\0"))


def core(loads: Sequence[Load], notes: bytes = b"") -> bytes:
    """An ELF core."""
    count = len(loads) + 1
    at = EHDR.size + PHDR.size * count
    headers = [PHDR.pack(4, 0, at, 0, 0, len(notes), len(notes), 0)]
    offset = -(-(at + len(notes)) // PAGE) * PAGE
    body = b""
    for load in loads:
        size = len(load.data)
        headers.append(PHDR.pack(1, 0, offset + len(body), load.virtual, load.physical, size, size, 0))
        body += load.data
    ehdr = EHDR.pack(IDENT, 4, 62, 1, 0, EHDR.size, 0, 0, EHDR.size, PHDR.size, count, 0, 0, 0)
    return (ehdr + b"".join(headers) + notes).ljust(offset, b"\0") + body


def image(parts: Sequence[Part]) -> bytes:
    """An ELF executable with these sections, and a section-name table."""
    names, offsets = b"\0", []
    for name in [part.name for part in parts] + [".shstrtab"]:
        offsets.append(len(names))
        names += name.encode() + b"\0"
    body, at, headers = b"", EHDR.size, [bytes(SHDR.size)]
    for part, name_at in zip(parts, offsets, strict=False):
        headers.append(
            SHDR.pack(name_at, part.type, part.flags, part.address, at + len(body), len(part.data), part.link, 0, 1, 0)
        )
        body += part.data
    headers.append(SHDR.pack(offsets[-1], 3, 0, 0, at + len(body), len(names), 0, 0, 1, 0))
    body += names
    count = len(headers)
    ehdr = EHDR.pack(IDENT, 2, 62, 1, 0, 0, at + len(body), 0, EHDR.size, 0, 0, SHDR.size, count, count - 1)
    return ehdr + body + b"".join(headers)
