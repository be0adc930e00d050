"""How is a program's memory, with its threads' registers, written as the ELF core that gdb opens?

Mirrors fs/binfmt_elf.c: a note for each thread, further ones about the process, and a PT_LOAD for each stretch of memory.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from orcdbg.base.sizes import PAGE, U64
from orcdbg.formats.elf import EM_X86_64

NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE = 1, 3, 6, 0x46494C45
_ET_CORE, _PT_LOAD, _PT_NOTE = 4, 1, 4
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_PRSTATUS_SIZE, _PRPSINFO_SIZE = 336, 136
_REGISTERS_AT = 112
# struct user_regs_struct (arch/x86/include/asm/user_64.h).
REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)


class CoreSegment(NamedTuple):
    """A stretch of memory with bytes in the file, or, where `has_bytes` is false, zeros that need none.

    `permissions` are the bits of p_flags.
    """

    address: int
    size: int
    permissions: int
    has_bytes: bool


class MappedFile(NamedTuple):
    """A stretch of memory that maps a file, `offset` in bytes."""

    start: int
    end: int
    offset: int
    path: bytes


def note(kind: int, data: bytes) -> bytes:
    """A note of the owner CORE."""
    owner = b"CORE\0"
    return (
        struct.pack("<III", len(owner), len(data), kind)
        + owner.ljust(8, b"\0")
        + data.ljust(-(-len(data) // 4) * 4, b"\0")
    )


def prstatus(pid: int, parent: int, registers: Mapping[str, int]) -> bytes:
    """NT_PRSTATUS of a thread; registers that are not known are zero."""
    data = bytearray(_PRSTATUS_SIZE)
    struct.pack_into("<II", data, 32, pid & 0xFFFFFFFF, parent & 0xFFFFFFFF)
    values = [registers.get(name, 0) & U64 for name in REGISTERS]
    struct.pack_into(f"<{len(values)}Q", data, _REGISTERS_AT, *values)
    return bytes(data)


def prpsinfo(pid: int, parent: int, name: bytes, arguments: bytes) -> bytes:
    """NT_PRPSINFO of a process."""
    data = bytearray(_PRPSINFO_SIZE)
    data[1:2] = b"S"
    struct.pack_into("<II", data, 24, pid & 0xFFFFFFFF, parent & 0xFFFFFFFF)
    data[40:56] = name[:15].ljust(16, b"\0")
    data[56:136] = arguments[:79].ljust(80, b"\0")
    return bytes(data)


def files_note(files: Sequence[MappedFile]) -> bytes:
    """NT_FILE: which files are mapped where."""
    head = struct.pack("<QQ", len(files), PAGE)
    places = b"".join(struct.pack("<QQQ", one.start, one.end, one.offset // PAGE) for one in files)
    return head + places + b"".join(one.path + b"\0" for one in files)


def write_head(file: IO[bytes], notes: bytes, segments: Sequence[CoreSegment]) -> list[int]:
    """Writes headers and notes; returns where in the file the bytes of each segment belong."""
    headers = _EHDR.size + _PHDR.size * (len(segments) + 1)
    offset = -(-(headers + len(notes)) // PAGE) * PAGE
    program = [_PHDR.pack(_PT_NOTE, 0, headers, 0, 0, len(notes), 0, 4)]
    places = []
    for one in segments:
        places.append(offset)
        in_file = one.size if one.has_bytes else 0
        program.append(_PHDR.pack(_PT_LOAD, one.permissions, offset, one.address, 0, in_file, one.size, PAGE))
        offset += in_file
    file.write(
        _EHDR.pack(
            _IDENT, _ET_CORE, EM_X86_64, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, len(segments) + 1, 0, 0, 0
        )
    )
    file.write(b"".join(program))
    file.write(notes)
    return places
