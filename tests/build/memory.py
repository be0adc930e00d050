"""Memory made by code: sparse address spaces, page tables, and stacks."""

from __future__ import annotations

import abc

from orcdbg.base.errors import NotInSnapshot, OrcdbgError
from orcdbg.base.reading import I64Array, U64Array
from orcdbg.base.sizes import PAGE


class SparseMemory:
    """An AddressSpace of separate pieces; what no piece holds is not in the snapshot."""

    def __init__(self, name: str = "virtual") -> None:
        self.name = name
        self.pieces: dict[int, bytearray] = {}

    def put(self, address: int, data: bytes) -> None:
        """Adds a piece."""
        self.pieces[address] = bytearray(data)

    def put_words(self, address: int, *words: int) -> None:
        """Adds a piece of 64-bit words."""
        self.put(address, b"".join((word & (1 << 64) - 1).to_bytes(8, "little") for word in words))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of one piece."""
        for start, data in self.pieces.items():
            if start <= address and address + size <= start + len(data):
                return bytes(data[address - start : address - start + size])
        raise NotInSnapshot(self.name, address, size)


class ChangedMemory(abc.ABC):
    """Memory that answers otherwise than what is behind it: many pieces are read one by one, each as `read` has it."""

    @abc.abstractmethod
    def read(self, address: int, size: int, /) -> bytes:
        """The bytes, as they are now."""

    def read_pieces(self, addresses: U64Array, sizes: I64Array) -> list[bytes | None]:
        """Each alone."""
        found: list[bytes | None] = []
        for address, size in zip(addresses.tolist(), sizes.tolist(), strict=True):
            try:
                found.append(self.read(address, size))
            except OrcdbgError:
                found.append(None)
        return found


class PageTableBuilder:
    """Builds x86-64 page tables in physical memory, one mapping at a time."""

    def __init__(self, levels: int, first: int = 0x10_0000) -> None:
        self.levels = levels
        self.tables: dict[int, list[int]] = {}
        self._next = first
        self.root = self._new_table()

    def _new_table(self) -> int:
        address, self._next = self._next, self._next + PAGE
        self.tables[address] = [0] * 512
        return address

    def map(self, virtual: int, physical: int, leaf_shift: int = 12) -> None:
        """Maps a page of 4 KiB (shift 12), 2 MiB (21) or 1 GiB (30)."""
        table = self.tables[self.root]
        for shift in range(12 + 9 * (self.levels - 1), leaf_shift, -9):
            index = virtual >> shift & 511
            if not table[index]:
                table[index] = self._new_table() | 3
            table = self.tables[table[index] & ~0xFFF]
        table[virtual >> leaf_shift & 511] = physical | 3 | (0x80 if leaf_shift > 12 else 0)

    def write(self, memory: SparseMemory) -> None:
        """Puts the tables into memory."""
        for address, entries in self.tables.items():
            memory.put_words(address, *entries)
