"""What does a VMware .vmss or .vmsn file say of memory and CPUs?

A header, a table of groups, and in each group a list of tagged values: a tag of 16 bits (length of the name, number of
indices, length of the value), the name, the indices, the value; a value may be a block with a header of its own. Of the
format no description was published; this follows what readers of it agree upon.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource

MAGICS = tuple(number.to_bytes(4, "little") for number in (0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2))
MAX_GROUPS, MAX_VALUES = 4096, 1 << 16
_GROUP = struct.Struct("<64sQQ")
_BLOCK, _COMPRESSED_BLOCK = 0x3F, 0x3E
_BLOCK_HEADER = struct.Struct("<QQH")


class Value(NamedTuple):
    """A tagged value: where its `size` bytes are in the file."""

    name: str
    indices: tuple[int, ...]
    offset: int
    size: int
    is_block: bool
    is_compressed: bool


def _values(source: ByteSource, at: int) -> Iterator[Value]:
    for _ in range(MAX_VALUES):
        tag = int.from_bytes(source.read_at(at, 2), "little")
        if tag == 0:
            return
        name_size, count, size = tag >> 8, tag >> 6 & 3, tag & 0x3F
        name = source.read_at(at + 2, name_size).decode("ascii", "replace")
        at += 2 + name_size
        indices = struct.unpack(f"<{count}I", source.read_at(at, 4 * count))
        at += 4 * count
        is_block = size in (_BLOCK, _COMPRESSED_BLOCK)
        is_compressed = size == _COMPRESSED_BLOCK
        if is_block:
            size, _, padding = _BLOCK_HEADER.unpack(source.read_at(at, _BLOCK_HEADER.size))
            at += _BLOCK_HEADER.size + padding
        yield Value(name, indices, at, size, is_block, is_compressed)
        at += size
    raise UnsupportedFormat(source.name, f"a group of more than {MAX_VALUES} values")


def parse_groups(source: ByteSource) -> dict[str, list[Value]]:
    """The values of the groups `memory` and `cpu`.

    Raises:
        UnsupportedFormat: the tables leave the file, or are larger than any machine's.
    """
    magic, _, count = struct.unpack("<4sII", source.read_at(0, 12))
    if magic not in MAGICS:
        raise UnsupportedFormat(source.name, "not a VMware snapshot")
    if count > MAX_GROUPS:
        raise UnsupportedFormat(source.name, f"a VMware snapshot of {count} groups")
    found: dict[str, list[Value]] = {}
    for number in range(count):
        raw, position, _ = _GROUP.unpack(source.read_at(12 + number * _GROUP.size, _GROUP.size))
        name = raw.partition(b"\0")[0].decode("ascii", "replace")
        if name in ("memory", "cpu"):
            found[name] = list(_values(source, position))
    return found
