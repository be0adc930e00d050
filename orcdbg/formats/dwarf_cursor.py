"""How are DWARF's numbers and strings taken from bytes, without trusting their lengths?"""

from __future__ import annotations

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.base.sizes import U64


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
