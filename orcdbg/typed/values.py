"""What do bytes mean, read as a C type?"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.typed.types import (
    MAX_DEPTH,
    ArrayType,
    CompoundType,
    EnumType,
    FloatType,
    IntKind,
    IntType,
    PointerType,
    Type,
    is_text_type,
    resolved,
)

# Parts of one value; damaged types could make as many as they like.
MAX_VALUES = 1 << 16
# An __int128 is the largest number.
_MAX_NUMBER_SIZE = 16


class ScalarKind(enum.Enum):
    """What a value without parts is."""

    INT = enum.auto()
    POINTER = enum.auto()
    BOOL = enum.auto()
    ENUM = enum.auto()
    FLOAT = enum.auto()
    TEXT = enum.auto()  # an array of characters, up to its zero
    UNKNOWN = enum.auto()


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts.

    Attributes:
        kind: what it is.
        value: a number; text of `TEXT`, and of an `ENUM` whose number has a name; None of `UNKNOWN`.
    """

    kind: ScalarKind
    value: int | float | str | None


@dataclass(frozen=True, slots=True)
class Compound:
    """The members of a structure or union, those of anonymous ones among them."""

    members: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of an array."""

    elements: tuple[Value, ...]


Value = Scalar | Compound | Elements

# Of struct, by the bytes of a number and whether it is signed.
_CODES = {(1, True): "b", (1, False): "B", (2, True): "h", (2, False): "H"} | {
    (4, True): "i",
    (4, False): "I",
    (8, True): "q",
    (8, False): "Q",
}

UNKNOWN = Scalar(ScalarKind.UNKNOWN, None)


def read_value(type_: Type, data: bytes, bit_offset: int = 0, bit_size: int = 0) -> Value:
    """The value of a type in some bytes; what they do not reach is unknown.

    Args:
        type_: of the value.
        data: the bytes.
        bit_offset: where it begins.
        bit_size: of a bit-field, else 0.

    Raises:
        UnsupportedFormat: it has more parts than anybody would read.
    """
    return _Reading(data).value(type_, bit_offset, bit_size, 0)


def read_number(type_: Type, data: bytes, bit_offset: int = 0, bit_size: int = 0) -> int | float | None:
    """The number of a type without parts in some bytes: of an enumeration too; None of anything else, and of cut-off bytes."""
    plain = resolved(type_)
    if isinstance(plain, FloatType):
        layout = {4: "<f", 8: "<d"}.get(plain.size)
        number: float | None = (
            struct.unpack_from(layout, data, bit_offset // 8)[0]
            if layout and fits(data, bit_offset, 8 * plain.size)
            else None
        )
        return number
    if not isinstance(plain, IntType | EnumType | PointerType) or not 0 < plain.size <= _MAX_NUMBER_SIZE:
        return None
    bits = bit_size or 8 * plain.size
    if not fits(data, bit_offset, bits):
        return None
    start, end = bit_offset // 8, -(-(bit_offset + bits) // 8)
    raw = int.from_bytes(data[start:end], "little") >> bit_offset % 8 & (1 << bits) - 1
    return signed(raw, bits) if not isinstance(plain, PointerType) and plain.is_signed else raw


def fits(data: bytes, bit_offset: int, bits: int) -> bool:
    """Whether some bytes hold that many bits from there on."""
    return bit_offset >= 0 and bit_offset + bits <= 8 * len(data)


class _Reading:
    """One value being read, with the count of its parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count = 0

    def value(self, type_: Type, bit_offset: int, bit_size: int, depth: int) -> Value:
        """A type's value at a bit offset."""
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise UnsupportedFormat(type_.name or "a type", f"a value of more than {MAX_VALUES} parts")

        plain = resolved(type_)
        if isinstance(plain, CompoundType):
            return Compound(tuple(self._members(plain, bit_offset, depth)))
        if isinstance(plain, ArrayType):
            return self._array(plain, bit_offset, depth)

        number = read_number(plain, self._data, bit_offset, bit_size)
        return UNKNOWN if number is None else scalar(plain, number)

    def _members(self, compound: CompoundType, base: int, depth: int) -> Iterator[tuple[str, Value]]:
        """Names and values of a structure's members, `base` bits into the data; those of anonymous ones among them."""
        for member in compound.members:
            value = self.value(member.type, base + member.bit_offset, member.bit_size, depth + 1)
            if not member.name and isinstance(value, Compound):
                yield from value.members
            elif member.name:
                yield member.name, value

    def _array(self, array: ArrayType, bit_offset: int, depth: int) -> Value:
        """An array's elements, or its text."""
        size = array.target.size
        count = min(array.length or 0, MAX_VALUES) if size else 0

        start = bit_offset // 8
        if count and is_text_type(array.target):
            text = self._data[start : start + count].split(b"\0", 1)[0]
            if all(32 <= byte < 127 for byte in text):
                return Scalar(ScalarKind.TEXT, text.decode("ascii"))

        numbers = self._numbers(resolved(array.target), bit_offset, count)
        if numbers is not None:
            return numbers

        values = (self.value(array.target, bit_offset + 8 * size * index, 0, depth + 1) for index in range(count))
        return Elements(tuple(values))

    def _numbers(self, plain: Type, bit_offset: int, count: int) -> Elements | None:
        """An array of integers or pointers, unpacked at once; None for others, which are read one by one.

        A task_struct has 4096 bytes of registers, seen as four arrays: one by one they are most of its 40 ms.
        """
        if isinstance(plain, PointerType):
            kind, is_signed = ScalarKind.POINTER, False
        elif isinstance(plain, IntType) and plain.kind is not IntKind.BOOL:
            kind, is_signed = ScalarKind.INT, plain.is_signed
        else:
            return None
        code = _CODES.get((plain.size, is_signed)) if bit_offset % 8 == 0 else None
        if code is None or not fits(self._data, bit_offset, 8 * plain.size * count):
            return None
        self._count += count
        if self._count > MAX_VALUES:
            raise UnsupportedFormat(plain.name or "a type", f"a value of more than {MAX_VALUES} parts")

        numbers = struct.unpack_from(f"<{count}{code}", self._data, bit_offset // 8)
        known = {number: Scalar(kind, number) for number in set(numbers)}
        return Elements(tuple(map(known.__getitem__, numbers)))


def pointers_in(value: Value) -> Iterator[int]:
    """The addresses that the pointers in a value hold, whatever it consists of."""
    if isinstance(value, Scalar):
        if value.kind is ScalarKind.POINTER and isinstance(value.value, int):
            yield value.value
        return
    if isinstance(value, Elements):
        parts: Sequence[Value] = value.elements
        if parts and isinstance(parts[0], Scalar) and parts[0].kind is not ScalarKind.POINTER:
            return  # elements are of one type
    else:
        parts = [inner for _, inner in value.members]
    for part in parts:
        yield from pointers_in(part)


def scalar(plain: Type, number: int | float) -> Scalar:
    """A number as its type, without typedefs and qualifiers, means it."""
    if isinstance(plain, PointerType):
        return Scalar(ScalarKind.POINTER, int(number))
    if isinstance(plain, EnumType):
        return Scalar(ScalarKind.ENUM, plain.names.get(int(number)) or number)
    if isinstance(plain, FloatType):
        return Scalar(ScalarKind.FLOAT, number)
    if isinstance(plain, IntType) and plain.kind is IntKind.BOOL:
        return Scalar(ScalarKind.BOOL, number)
    return Scalar(ScalarKind.INT, number)
