"""A kernel made by code: BTF of chosen structures, symbols at chosen addresses, and memory."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.linux import Linux
from orcdbg.symbols.btf import INT, MAGIC, PTR, STRUCT, Btf
from orcdbg.symbols.table import ENTRY, SymbolTable

U8, U32, U64, POINTER, WORD_POINTER = "u8", "u32", "u64", "void *", "unsigned long *"
_TYPES = (U8, U32, U64, POINTER, WORD_POINTER)
# Size, and members by name with offset in bytes and one of the types above, or the name of another structure.
Structure = tuple[int, Mapping[str, tuple[int, str]]]


def encode_btf(structures: Mapping[str, Structure]) -> bytes:
    """A BTF section with these structures."""
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    def header(text: str, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<III", name(text) if text else 0, kind << 24 | count, value)

    numbers = [*_TYPES, *structures]
    types = b"".join(header(text, INT, 0, size) + bytes(4) for text, size in ((U8, 1), (U32, 4), (U64, 8)))
    types += header("", PTR, 0, 0) + header("", PTR, 0, _TYPES.index(U64) + 1)
    for title, (size, members) in structures.items():
        types += header(title, STRUCT, len(members), size)
        for member, (offset, kind) in members.items():
            types += struct.pack("<III", name(member), numbers.index(kind) + 1, 8 * offset)
    head = struct.pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(strings))
    return head + types + bytes(strings)


def symbol_table(symbols: Mapping[str, tuple[int, int]]) -> SymbolTable:
    """A table of functions: address and size by name."""
    strings, rows = b"\0", []
    for title, (address, size) in symbols.items():
        rows.append((len(strings), 0x12, 0, 1, address, size))
        strings += title.encode() + b"\0"
    return SymbolTable("test", np.array(rows, dtype=ENTRY).tobytes(), strings, [], 1)


def made_linux(
    memory: AddressSpace, structures: Mapping[str, Structure], symbols: Mapping[str, tuple[int, int]] | None = None
) -> Linux:
    """A kernel of these structures and symbols, not relocated."""
    return Linux(memory, symbol_table(symbols or {}), Btf(encode_btf(structures), "test").structs, 0)
