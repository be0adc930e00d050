"""How is memory written as an ELF core that every reader of cores opens?"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import EM_X86_64, ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE, Note

# Elf64_Ehdr, Elf64_Phdr, Elf64_Shdr and Elf64_Nhdr of include/uapi/linux/elf.h.
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_NHDR = struct.Struct("<III")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_READ_WRITE_EXECUTE = 7


class Run(NamedTuple):
    """A stretch of physical memory: the number of its first page, its pages, and whether they hold nothing but zeros."""

    first: int
    pages: int
    is_zero: bool

    @property
    def file_size(self) -> int:
        """The bytes that it takes in the file."""
        return 0 if self.is_zero else self.pages * PAGE


def encode_note(note: Note) -> bytes:
    """One note as it stands in a PT_NOTE segment, 4-byte aligned."""
    name = note.name.encode() + b"\0"
    header = _NHDR.pack(len(name), len(note.data), note.type)
    return header + _padded(name, 4) + _padded(note.data, 4)


def _padded(data: bytes, to: int) -> bytes:
    return data + bytes(-len(data) % to)


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
    is_extended = count >= PN_XNUM

    table_end = _EHDR.size + _PHDR.size * count
    notes_at = table_end + (_SHDR.size if is_extended else 0)
    memory_at = notes_at + len(body) + -(notes_at + len(body)) % PAGE

    start = _file_header(count, table_end if is_extended else None)
    start += _program_headers(runs, notes_at, len(body), memory_at)
    if is_extended:
        start += _SHDR.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0)
    out.write(_padded(start + body, PAGE))

    for run in runs:
        if not run.is_zero:
            out.write(read(run.first, run.pages))
    return memory_at + sum(run.file_size for run in runs)


def _file_header(count: int, first_section: int | None) -> bytes:
    """The file header of so many program headers; `first_section` is where section 0 counts them, where it does."""
    sections = 0 if first_section is None else 1
    return _EHDR.pack(
        _IDENT,
        ET_CORE,
        EM_X86_64,
        1,  # e_version
        0,  # e_entry
        _EHDR.size,  # e_phoff
        first_section or 0,  # e_shoff
        0,  # e_flags
        _EHDR.size,
        _PHDR.size,
        PN_XNUM if sections else count,  # e_phnum
        _SHDR.size * sections,
        sections,  # e_shnum
        0,  # e_shstrndx
    )


def _program_headers(runs: Sequence[Run], notes_at: int, notes_size: int, memory_at: int) -> bytes:
    """One header for the notes and one a stretch, whose bytes follow each other from `memory_at` on."""
    headers = [_PHDR.pack(PT_NOTE, 0, notes_at, 0, 0, notes_size, notes_size, 0)]
    offset = memory_at
    for run in runs:
        physical = run.first * PAGE
        size = run.pages * PAGE
        headers.append(_PHDR.pack(PT_LOAD, _READ_WRITE_EXECUTE, offset, 0, physical, run.file_size, size, 0))
        offset += run.file_size
    return b"".join(headers)
