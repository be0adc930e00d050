"""How are a few stretches of bytes, with names for places in them, written as an ELF file that binutils open?"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from orcdbg.formats.elf import EM_X86_64, ET_EXEC, SHF_ALLOC, SHF_EXECINSTR

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_FUNCTION = 0x12  # global, function


class CodeStretch(NamedTuple):
    """A section of code: its name, its address, its bytes."""

    name: str
    address: int
    data: bytes


class Label(NamedTuple):
    """A symbol: its name, its address, its size in bytes, the number of its stretch."""

    name: str
    address: int
    size: int
    stretch: int


def _strings(names: Sequence[str]) -> tuple[bytes, list[int]]:
    """A string table, and where each name is in it."""
    out, offsets = bytearray(b"\0"), []
    for name in names:
        offsets.append(len(out))
        out += name.encode() + b"\0"
    return bytes(out), offsets


def encode_elf(stretches: Sequence[CodeStretch], labels: Sequence[Label]) -> bytes:
    """An executable without program headers: the stretches as sections, the labels as its symbol table."""
    names, name_offsets = _strings([*(one.name for one in stretches), ".symtab", ".strtab", ".shstrtab"])
    strings, offsets = _strings([label.name for label in labels])
    symbols = bytes(_SYM.size) + b"".join(
        _SYM.pack(at, _FUNCTION, 0, label.stretch + 1, label.address, label.size)
        for at, label in zip(offsets, labels, strict=True)
    )
    count = len(stretches)
    code = SHF_ALLOC | SHF_EXECINSTR
    parts = [(_PROGBITS, code, one.address, one.data, 0, 0, 16, 0) for one in stretches]
    parts += [(_SYMTAB, 0, 0, symbols, count + 2, 1, 8, _SYM.size), (_STRTAB, 0, 0, strings, 0, 0, 1, 0)]
    parts.append((_STRTAB, 0, 0, names, 0, 0, 1, 0))
    body, headers = bytearray(_EHDR.size), bytearray(_SHDR.size)
    for at, (kind, flags, address, data, link, info, align, step) in zip(name_offsets, parts, strict=True):
        body += bytes(-len(body) % 16)
        headers += _SHDR.pack(at, kind, flags, address, len(body), len(data), link, info, align, step)
        body += data
    body += bytes(-len(body) % 16)
    total = len(parts) + 1
    header = _EHDR.pack(
        _IDENT, ET_EXEC, EM_X86_64, 1, 0, 0, len(body), 0, _EHDR.size, 0, 0, _SHDR.size, total, total - 1
    )
    body[: _EHDR.size] = header
    return bytes(body + headers)
