"""What does a VMware .vmss or .vmsn file say of memory and CPUs?

A header, a table of groups, and in each group a list of tagged values: a tag of 16 bits (length of the name, number of
indices, length of the value), the name, the indices, the value; a value may be a block with a header of its own. Of the
format no description was published; this follows what readers of it agree upon.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource

MAGICS = tuple(number.to_bytes(4, "little") for number in (0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2))
# A real file has some hundred groups, and some thousand values in the group of a device.
MAX_GROUPS = 4096
MAX_VALUES = 1 << 16
_HEADER_SIZE = 12  # magic, a word that nobody knows, count of groups
_GROUP = struct.Struct("<64sQQ")  # name, offset, size
# Lengths of values that mean a block with a header of its own: size, size unpacked, padding.
_BLOCK = 0x3F
_COMPRESSED_BLOCK = 0x3E
_BLOCK_HEADER = struct.Struct("<QQH")


class Value(NamedTuple):
    """A tagged value: where its `size` bytes are in the file."""

    name: str
    indices: tuple[int, ...]
    offset: int
    size: int
    is_block: bool
    is_compressed: bool


# Values of one group by name and indices, such as ("CR64", (cpu, 3)).
Numbers = Mapping[tuple[str, tuple[int, ...]], int]


def _values(source: ByteSource, offset: int) -> Iterator[Value]:
    """The values of the group at `offset`, up to its end: a tag of zero."""
    for _ in range(MAX_VALUES):
        tag = int.from_bytes(source.read_at(offset, 2), "little")
        if tag == 0:
            return
        offset += 2

        name_size = tag >> 8
        name = source.read_at(offset, name_size).decode("ascii", "replace")
        offset += name_size

        count = tag >> 6 & 3
        indices = struct.unpack(f"<{count}I", source.read_at(offset, 4 * count))
        offset += 4 * count

        size = tag & 0x3F
        is_block = size in (_BLOCK, _COMPRESSED_BLOCK)
        is_compressed = size == _COMPRESSED_BLOCK
        if is_block:
            size, _, padding = _BLOCK_HEADER.unpack(source.read_at(offset, _BLOCK_HEADER.size))
            offset += _BLOCK_HEADER.size + padding

        yield Value(name, indices, offset, size, is_block, is_compressed)
        offset += size
    raise UnsupportedFormat(source.name, f"a group of more than {MAX_VALUES} values")


def parse_groups(source: ByteSource) -> dict[str, list[Value]]:
    """The values of the groups `memory` and `cpu`, by the group's name; the other groups are devices.

    Raises:
        UnsupportedFormat: the tables leave the file, or are larger than any machine's.
    """
    magic, _, count = struct.unpack("<4sII", source.read_at(0, _HEADER_SIZE))
    if magic not in MAGICS:
        raise UnsupportedFormat(source.name, "not a VMware snapshot")
    if count > MAX_GROUPS:
        raise UnsupportedFormat(source.name, f"a VMware snapshot of {count} groups")

    groups: dict[str, list[Value]] = {}
    for number in range(count):
        entry = source.read_at(_HEADER_SIZE + number * _GROUP.size, _GROUP.size)
        raw_name, offset, _ = _GROUP.unpack(entry)
        name = raw_name.partition(b"\0")[0].decode("ascii", "replace")
        if name in ("memory", "cpu"):
            groups[name] = list(_values(source, offset))
    return groups


def parse_numbers(source: ByteSource, values: Sequence[Value]) -> Numbers:
    """All values of a group that are plain numbers.

    Raises:
        UnsupportedFormat: one of them is beyond the end of the file.
    """
    return {
        (value.name, value.indices): int.from_bytes(source.read_at(value.offset, value.size), "little")
        for value in values
        if not value.is_block
    }


# Blocks of registers, which some versions write where others have a value for each register.
_GENERAL = struct.Struct("<16Q")
_GENERAL_NAMES = ("rax", "rcx", "rdx", "rbx", "rbp", "rsp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
_CONTROL = struct.Struct("<9Q")
_TABLE_REGISTER = struct.Struct("<HII")  # limit, and the halves of the base


def parse_register_blocks(source: ByteSource, values: Sequence[Value]) -> Numbers:
    """The registers that stand in blocks, under the names and indices that they have where they are values.

    Raises:
        UnsupportedFormat: one of them is beyond the end of the file.
    """
    found: dict[tuple[str, tuple[int, ...]], int] = {}
    for value in values:
        if not value.is_block or value.is_compressed or len(value.indices) != 1:
            continue
        cpu = value.indices[0]
        if value.name == "gpregs" and value.size == _GENERAL.size:
            numbers = _GENERAL.unpack(source.read_at(value.offset, value.size))
            found |= {(name, (cpu,)): number for name, number in zip(_GENERAL_NAMES, numbers, strict=True)}
        elif value.name == "CR64" and value.size == _CONTROL.size:
            numbers = _CONTROL.unpack(source.read_at(value.offset, value.size))
            found |= {("CR64", (cpu, index)): number for index, number in enumerate(numbers)}
        elif value.name == "IDTR" and value.size == _TABLE_REGISTER.size:
            numbers = _TABLE_REGISTER.unpack(source.read_at(value.offset, value.size))
            found |= {("IDTR", (cpu, index)): number for index, number in enumerate(numbers)}
    return found
