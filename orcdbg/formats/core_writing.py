"""How is memory written as an ELF core that every reader of cores opens?"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

from orcdbg.formats.elf import EM_X86_64, ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE, Note

PAGE = 4096
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NHDR = struct.Struct("<III")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")


class Run(NamedTuple):
    """A stretch of physical memory: the number of its first page, its pages, and whether they hold nothing but zeros."""

    first: int
    pages: int
    is_zero: bool


def encode_note(note: Note) -> bytes:
    """One note as it stands in a PT_NOTE segment, 4-byte aligned."""
    name = note.name.encode() + b"\0"
    header = _NHDR.pack(len(name), len(note.data), note.type)
    return header + name.ljust(len(name) + 3 & ~3, b"\0") + note.data.ljust(len(note.data) + 3 & ~3, b"\0")


def _aligned(size: int) -> int:
    return -(-size // PAGE) * PAGE


def write_core(out: IO[bytes], notes: Sequence[Note], runs: Sequence[Run], read: Callable[[int, int], bytes]) -> int:
    """Writes a core.

    Args:
        out: where to; written from first byte to last.
        notes: for its PT_NOTE.
        runs: the memory, one PT_LOAD a stretch; zeros take no place in the file (p_filesz 0, as the gABI has it).
        read: the memory's bytes, given number of the first page and count.

    Returns:
        The bytes written.
    """
    body = b"".join(encode_note(note) for note in notes)
    count = 1 + len(runs)
    # More headers than the file header can count are counted by section 0 (gABI, "Extended numbering").
    extended = count >= PN_XNUM
    headers = _EHDR.size + _PHDR.size * count + (_SHDR.size if extended else 0)
    offset = _aligned(headers + len(body))
    table = [_PHDR.pack(PT_NOTE, 0, headers, 0, 0, len(body), len(body), 0)]
    for first, pages, is_zero in runs:
        size = 0 if is_zero else pages * PAGE
        table.append(_PHDR.pack(PT_LOAD, 7, offset, 0, first * PAGE, size, pages * PAGE, 0))
        offset += size
    sections = (_EHDR.size + _PHDR.size * count, _SHDR.size, 1) if extended else (0, 0, 0)
    shown = PN_XNUM if extended else count
    header = _EHDR.pack(
        *(_IDENT, ET_CORE, EM_X86_64, 1, 0, _EHDR.size, sections[0], 0, _EHDR.size, _PHDR.size, shown, *sections[1:], 0)
    )
    first_section = _SHDR.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0) if extended else b""
    start = header + b"".join(table) + first_section + body
    out.write(start.ljust(_aligned(len(start)), b"\0"))
    for first, pages, is_zero in runs:
        if not is_zero:
            out.write(read(first, pages))
    return offset
