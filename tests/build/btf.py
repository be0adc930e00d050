"""BTF made by code, type by type: for the forms that `tests/build/kernel.py` has no need of."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import MAGIC, Btf

VOID = 0
Member = tuple[str, int, int]  # name, type, bit offset; with a flagged structure, bits of a bit-field in the top byte


class BtfBuilder:
    """Types in order; each call gives the new type's number."""

    def __init__(self) -> None:
        self._strings = b"\0"
        self._types = b""
        self._count = 0

    def name(self, text: str) -> int:
        """A string's offset."""
        if not text:
            return 0
        self._strings += text.encode() + b"\0"
        return len(self._strings) - len(text) - 1

    def add(
        self, name: str, kind: int, value: int, words: Sequence[int] = (), vlen: int = 0, flag: bool = False
    ) -> int:
        """A type as it is."""
        info = flag << 31 | kind << 24 | vlen
        self._types += struct.pack(f"<III{len(words)}I", self.name(name), info, value, *words)
        self._count += 1
        return self._count

    def integer(self, name: str, size: int, encoding: int = 0, bits: int = 0, shift: int = 0) -> int:
        """An integer; encoding 1 is signed, 2 a character, 4 a truth value."""
        return self.add(name, kinds.INT, size, [encoding << 24 | shift << 16 | (bits or 8 * size)])

    def pointer(self, target: int) -> int:
        """A pointer."""
        return self.add("", kinds.PTR, target)

    def array(self, element: int, count: int) -> int:
        """An array."""
        return self.add("", kinds.ARRAY, 0, [element, 0, count])

    def structure(
        self, name: str, size: int, members: Sequence[Member], kind: int = kinds.STRUCT, flag: bool = False
    ) -> int:
        """A structure or union."""
        words = [word for title, target, where in members for word in (self.name(title), target, where)]
        return self.add(name, kind, size, words, len(members), flag)

    def enumeration(self, name: str, values: Sequence[tuple[str, int]], flag: bool = False) -> int:
        """An enumeration of four bytes."""
        words = [word for title, value in values for word in (self.name(title), value & 0xFFFF_FFFF)]
        return self.add(name, kinds.ENUM, 4, words, len(values), flag)

    def function(self, result: int, parameters: Sequence[tuple[str, int]]) -> int:
        """A function's type."""
        words = [word for title, target in parameters for word in (self.name(title), target)]
        return self.add("", kinds.FUNC_PROTO, result, words, len(parameters))

    def encode(self) -> bytes:
        """The section."""
        sizes = len(self._types), len(self._types), len(self._strings)
        return struct.pack("<HBBIIIII", MAGIC, 1, 0, 24, 0, *sizes) + self._types + self._strings

    def built(self) -> Btf:
        """The section, opened."""
        return Btf(self.encode(), "test")
