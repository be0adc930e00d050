"""How are bytes and words taken from a source that may lie about its own size?

`AddressSpace` is the one shape that image text, physical memory, kernel virtual memory, replayed text and live targets
share. `ByteSource` is the same for a file: offsets instead of addresses, and a known end.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import MemoryFault, UnsupportedFormat
from orcdbg.base.inputs import remember
from orcdbg.base.sizes import PAGE, U64

U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]


def signed(value: int, bits: int) -> int:
    """`value`'s low `bits` as a two's complement number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def clamped(value: int) -> np.uint64:
    """The address that is next to a number: what damaged tables add up to may be no address."""
    return np.uint64(min(max(value, 0), U64))


class AddressSpace(Protocol):
    """Memory that can be read by address.

    `read` returns exactly `size` bytes or raises `NotInSnapshot` or `BadAddress`.
    """

    def read(self, address: int, size: int, /) -> bytes: ...


@runtime_checkable
class PieceReader(Protocol):
    """An address space that reads many small pieces at once, None for each that it would rather read alone."""

    def read_pieces(self, addresses: U64Array, sizes: I64Array, /) -> list[bytes | None]: ...


def read_memory_pieces(space: AddressSpace, addresses: Sequence[int], sizes: Sequence[int]) -> list[bytes | None]:
    """Many pieces of memory, None for each that cannot be read."""
    found: list[bytes | None] = [None] * len(addresses)
    if addresses and isinstance(space, PieceReader):
        found = space.read_pieces(np.array(addresses, dtype=np.uint64), np.array(sizes, dtype=np.int64))
    for place, data in enumerate(found):
        if data is None:
            try:
                found[place] = space.read(addresses[place], sizes[place])
            except MemoryFault:
                continue
    return found


def read_u64(space: AddressSpace, address: int) -> int:
    """The little-endian 64-bit word at `address`."""
    return int.from_bytes(space.read(address, 8), "little")


def read_u32(space: AddressSpace, address: int) -> int:
    """The little-endian 32-bit word at `address`."""
    return int.from_bytes(space.read(address, 4), "little")


def read_s32(space: AddressSpace, address: int) -> int:
    """The little-endian signed 32-bit word at `address`."""
    return int.from_bytes(space.read(address, 4), "little", signed=True)


def read_cstring(space: AddressSpace, address: int, limit: int = 256) -> bytes:
    """The bytes at `address` up to a NUL, a page that cannot be read, or `limit` bytes."""
    out = b""
    while len(out) < limit:
        step = min(limit - len(out), PAGE - (address + len(out)) % PAGE, 64)
        chunk = space.read(address + len(out), step)
        end = chunk.find(b"\0")
        if end >= 0:
            return out + chunk[:end]
        out += chunk
    return out


class ByteSource(Protocol):
    """A file's bytes: `name` for messages, `size` in bytes, and checked random access."""

    name: str
    size: int

    def read_at(self, offset: int, size: int, /) -> bytes: ...


def check_bounds(source: ByteSource, offset: int, size: int) -> None:
    """Raises UnsupportedFormat unless `size` bytes at `offset` are inside the file."""
    if offset < 0 or size < 0 or offset + size > source.size:
        raise UnsupportedFormat(
            source.name, f"truncated: {size} bytes expected at offset {offset:#x}, the file ends at {source.size:#x}"
        )


class FileSource:
    """A file read by `pread`, snapshots too: memory use is what the reader keeps, whatever the file's size.

    A mapping would keep every touched page, with those that the system maps around it, and end the program if somebody
    cut the file.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe nobody waits for a writer
        except OSError as error:
            raise UnsupportedFormat(path, f"cannot be opened: {error.strerror}") from error
        remember(path)
        info = os.fstat(self._fd)
        self.size = info.st_size
        self.is_regular = (info.st_mode & 0o170000) == 0o100000

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`; UnsupportedFormat when the file ends before."""
        check_bounds(self, offset, size)
        try:
            data = os.pread(self._fd, size, offset)
        except OSError as error:
            raise UnsupportedFormat(self.name, f"cannot be read: {error.strerror}") from error
        while len(data) < size:  # one pread returns at most 2 GiB
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                raise UnsupportedFormat(self.name, f"truncated while it was read, at offset {offset + len(data):#x}")
            data += more
        return data

    def close(self) -> None:
        """Gives the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class MappedSource:
    """A mapped file: for what is read often, close together, and cannot be cut by others."""

    def __init__(self, name: str, mapped: mmap.mmap) -> None:
        self.name, self.size, self._map = name, len(mapped), mapped

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`; UnsupportedFormat when the file ends before."""
        check_bounds(self, offset, size)
        return self._map[offset : offset + size]


class BytesSource:
    """A file that was decompressed into memory."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size = len(data)
        self._data = data

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`; UnsupportedFormat when the data end before."""
        check_bounds(self, offset, size)
        return self._data[offset : offset + size]


class FilePart:
    """A part of a file as a file of its own: a ByteSource out of which no offset leads to the rest of the file.

    Args:
        whole: the file.
        offset: where the part begins in it, in bytes.
        size: how long it should be, in bytes; where the file ends earlier, so does the part.
    """

    def __init__(self, whole: ByteSource, offset: int, size: int) -> None:
        self.name = whole.name
        self.size = max(0, min(size, whole.size - offset))
        self._whole = whole
        self._offset = offset

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the part; UnsupportedFormat when the part ends before."""
        check_bounds(self, offset, size)
        return self._whole.read_at(self._offset + offset, size)


class BytesSpace:
    """Bytes at an address, as an AddressSpace: for synthetic memory and for cut-outs of other spaces."""

    def __init__(self, address: int, data: bytes, fault: Callable[[int, int], Exception]) -> None:
        self.address = address
        self.data = data
        self._fault = fault

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`, or the fault this space was given."""
        start = address - self.address
        if start < 0 or size < 0 or start + size > len(self.data):
            raise self._fault(address, size)
        return self.data[start : start + size]


def unpack(source: ByteSource, offset: int, layout: struct.Struct) -> tuple[int, ...]:
    """The fields of `layout` at `offset`."""
    return layout.unpack(source.read_at(offset, layout.size))


def self_relative(table: bytes, address: int, stride: int = 4, offset: int = 0) -> U64Array:
    """The addresses that a table of signed words names, each counted from its own word.

    Args:
        table: the table's bytes; a last, incomplete entry is left out.
        address: where its first byte is at run time.
        stride: bytes of an entry.
        offset: of the word inside an entry.
    """
    count = len(table) // stride
    rows = np.frombuffer(table[: count * stride], dtype="<i4").reshape(count, stride // 4)
    words = rows[:, offset // 4].astype(np.int64)
    places = np.arange(count, dtype=np.int64) * stride + np.int64(signed(address + offset, 64))
    found: U64Array = (places + words).view(np.uint64)
    return found


def stretches(space: AddressSpace, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """What can be read of [begin, end): each stretch of neighbouring pages by where it begins, missing pages left out."""
    start, data = begin, b""
    page = begin
    while page < end:
        until = min((page // PAGE + 1) * PAGE, end)
        try:
            data += space.read(page, until - page)
        except MemoryFault:
            if data:
                yield start, data
            start, data = until, b""
        page = until
    if data:
        yield start, data
