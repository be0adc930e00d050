"""What does a structure of the kernel hold, written as C, and how do its bytes read?

On top of the section's own numbering (`btf`), for the types that somebody asks for. A type that contains itself, or more
than anybody would read, ends in an error.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import NotFound, UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import MAX_MEMBERS, Btf, RawType

# Each of these ends what a damaged section could go on with for ever: types that contain themselves, arrays of arrays,
# functions that take functions. What the kernel has stays far below.
MAX_DEPTH = 32
MAX_VALUES = 1 << 16
MAX_NAME = 4096
MAX_PARAMETERS = 64
MAX_PARTS = 1 << 11

_QUALIFIERS = {kinds.CONST: "const", kinds.VOLATILE: "volatile", kinds.RESTRICT: "restrict"}
_KEYWORD = {kinds.STRUCT: "struct", kinds.UNION: "union", kinds.ENUM: "enum", kinds.ENUM64: "enum"}
_COMPOUND = (kinds.STRUCT, kinds.UNION)
_NUMBERS = (kinds.PTR, kinds.INT, kinds.ENUM, kinds.ENUM64)

# BTF_INT_SIGNED, BTF_INT_CHAR, BTF_INT_BOOL, bits of an integer's encoding.
_SIGNED = 1
_CHAR = 2
_BOOL = 4

_POINTER_SIZE = 8
# An __int128 is the largest number.
_MAX_NUMBER_SIZE = 16


class Field(NamedTuple):
    """A direct member of a structure or union.

    Attributes:
        name: empty for an anonymous one.
        type_id: number of its type in the section.
        bit_offset: from the start of its structure.
        bit_size: bits of a bit-field, else 0.
    """

    name: str
    type_id: int
    bit_offset: int
    bit_size: int


class ScalarKind(enum.Enum):
    """What a value without parts is."""

    INT = enum.auto()
    POINTER = enum.auto()
    BOOL = enum.auto()
    ENUM = enum.auto()
    TEXT = enum.auto()  # a zero-terminated array of characters
    UNKNOWN = enum.auto()


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts.

    Attributes:
        kind: what it is.
        value: a number; text of `TEXT`, and of an `ENUM` whose number has a name; None of `UNKNOWN`.
    """

    kind: ScalarKind
    value: int | str | None


@dataclass(frozen=True, slots=True)
class Compound:
    """The members of a structure or union, those of anonymous ones among them."""

    members: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of an array."""

    elements: tuple[Value, ...]


Value = Scalar | Compound | Elements


class CTypes:
    """The types of one kernel.

    Args:
        types: its section.
    """

    def __init__(self, types: Btf) -> None:
        self._btf = types

    def find(self, name: str) -> int:
        """The number of the structure, union, or typedef of one, of that name.

        Raises:
            NotFound: there is none.
        """
        for kind in (*_COMPOUND, kinds.TYPEDEF):
            type_id = self._btf.find(kind, name)
            if type_id is not None and self.is_compound(type_id):
                return type_id
        raise NotFound("structure", name)

    def resolved(self, type_id: int) -> tuple[int, RawType]:
        """A type without typedefs and qualifiers: its number and its header.

        Raises:
            UnsupportedFormat: they go round in a circle.
        """
        for _ in range(MAX_DEPTH):
            raw = self._btf.raw(type_id)
            if raw.kind not in _QUALIFIERS and raw.kind not in (kinds.TYPEDEF, kinds.TYPE_TAG):
                return type_id, raw
            type_id = raw.value
        raise UnsupportedFormat(self._btf.name, f"type {type_id}: a chain of more than {MAX_DEPTH} qualifiers")

    def size(self, type_id: int) -> int:
        """Bytes of a type; 0 of `void`."""
        return self._btf.size_of(type_id) if type_id else 0

    def keyword(self, type_id: int) -> str:
        """`struct name` or `union name` of a structure, without typedefs; the name alone of anything else."""
        _, raw = self.resolved(type_id)
        return f"{_KEYWORD.get(raw.kind, '')} {raw.name}".strip()

    def fields(self, type_id: int) -> list[Field]:
        """The direct members of a structure or union; none of another type."""
        _, raw = self.resolved(type_id)
        if raw.kind not in _COMPOUND:
            return []

        fields = []
        for index in range(raw.vlen):
            name_offset, member_type, offset = self._btf.words(raw.at + 3 * index, 3)

            # With kind_flag, the offset's upper byte is a bit-field's size (BTF_MEMBER_BITFIELD_SIZE).
            bit_size = 0
            if raw.flag:
                bit_size = offset >> 24
                offset &= 0xFFFFFF
            if not bit_size and member_type:
                bit_size, shift = self._narrow(member_type)
                offset += shift

            name = self._btf.string(name_offset) if name_offset else ""
            fields.append(Field(name, member_type, offset, bit_size))
        return fields

    def _narrow(self, type_id: int) -> tuple[int, int]:
        """Bits and first bit of an integer type that does not fill its bytes, as old encoders made for bit-fields."""
        _, raw = self.resolved(type_id)
        if raw.kind != kinds.INT:
            return 0, 0
        encoding = self._btf.words(raw.at, 1)[0]
        bits = encoding & 0xFF
        shift = encoding >> 16 & 0xFF
        return (bits, shift) if bits != 8 * raw.value else (0, 0)

    def is_compound(self, type_id: int) -> bool:
        """True for a structure or union."""
        if not type_id:
            return False
        _, raw = self.resolved(type_id)
        return raw.kind in _COMPOUND

    def member(self, type_id: int, path: str) -> Field:
        """The member at a dotted path; anonymous structures are looked into.

        Args:
            type_id: the structure's.
            path: such as `se.cfs_rq`; only members that are structures themselves have more behind a dot.

        Returns:
            The last member of the path, with the whole path as its name and its offset from the first structure's start.

        Raises:
            NotFound: there is none.
        """
        field = Field("", type_id, 0, 0)
        offset = 0
        for step in path.split("."):
            inner = self._named(field.type_id, step)
            if inner is None:
                raise NotFound("member", f"{self.keyword(type_id)}.{path}")
            field = inner
            offset += field.bit_offset
        return field._replace(name=path, bit_offset=offset)

    def _named(self, type_id: int, name: str) -> Field | None:
        """The member of that name, those of anonymous members included; UnsupportedFormat where they are without end."""
        pending = [(type_id, 0)]
        seen = 0
        while pending:
            compound, base = pending.pop()
            anonymous = []
            for field in self.fields(compound):
                if field.name == name:
                    return field._replace(bit_offset=base + field.bit_offset)
                if not field.name and self.is_compound(field.type_id):
                    anonymous.append((field.type_id, base + field.bit_offset))
                seen += 1

            if seen > MAX_MEMBERS:
                raise UnsupportedFormat(self._btf.name, f"type {type_id} has more than {MAX_MEMBERS} members")
            # Reversed, so that they come off the pile in the order of the structure.
            pending += reversed(anonymous)
        return None

    def declaration(self, type_id: int, name: str) -> str:
        """A declaration of `name` with that type, as in C.

        Args:
            type_id: number of the type; 0 is `void`.
            name: what is declared; empty for the type alone.

        Raises:
            UnsupportedFormat: it is longer, or deeper, than anybody would write.
        """
        return _Writing(self._btf).declaration(type_id, name, 0)

    def read(self, field: Field, data: bytes) -> Value:
        """A member's value in the bytes of its structure; what they do not reach is unknown.

        Args:
            field: with its offset from the first byte.
            data: the structure's bytes.

        Raises:
            UnsupportedFormat: it has more parts than anybody would read.
        """
        return _Reading(self, self._btf).value(field.type_id, field.bit_offset, field.bit_size, data, 0)


class _Writing:
    """One declaration being written, with the count of its parts."""

    def __init__(self, source: Btf) -> None:
        self._btf = source
        self._count = 0

    def declaration(self, type_id: int, name: str, depth: int) -> str:
        """A declaration of `name` inside `depth` others."""
        self._count += 1
        if depth > MAX_DEPTH:
            raise UnsupportedFormat(self._btf.name, f"types nested deeper than {MAX_DEPTH}")
        if self._count > MAX_PARTS:
            raise UnsupportedFormat(self._btf.name, f"a declaration of more than {MAX_PARTS} parts")
        if len(name) > MAX_NAME:
            raise UnsupportedFormat(self._btf.name, f"a declaration of more than {MAX_NAME} characters")

        if type_id == 0:
            return f"void {name}".rstrip()

        # A declaration is written from the name outwards: what the name is, is put around it, and the rest goes on with that.
        raw = self._btf.raw(type_id)
        if raw.kind == kinds.PTR:
            target = self._btf.raw(raw.value).kind if raw.value else 0
            wrapped = f"(*{name})" if target in (kinds.ARRAY, kinds.FUNC_PROTO) else f"*{name}"
            return self.declaration(raw.value, wrapped, depth + 1)

        if raw.kind == kinds.ARRAY:
            element, _, count = self._btf.words(raw.at, 3)
            return self.declaration(element, f"{name}[{count}]", depth + 1)

        if raw.kind == kinds.FUNC_PROTO:
            return self.declaration(raw.value, f"{name}({self._parameters(raw, depth)})", depth + 1)

        if raw.kind in _QUALIFIERS:
            word = _QUALIFIERS[raw.kind]
            # What qualifies a pointer stands behind its star, everything else in front.
            if raw.value and self._btf.raw(raw.value).kind == kinds.PTR:
                return self.declaration(raw.value, f"{word} {name}".rstrip(), depth + 1)
            return f"{word} {self.declaration(raw.value, name, depth + 1)}"

        if raw.kind == kinds.TYPE_TAG:
            return self.declaration(raw.value, name, depth + 1)
        return f"{self._base(raw)} {name}".rstrip()

    def _base(self, raw: RawType) -> str:
        """A type's own name, with `struct` and the like in front."""
        keyword = _KEYWORD.get(raw.kind)
        if raw.kind == kinds.FWD:
            keyword = "union" if raw.flag else "struct"
        return f"{keyword} {raw.name or '{...}'}" if keyword else raw.name or "?"

    def _parameters(self, raw: RawType, depth: int) -> str:
        """What stands between a function's parentheses."""
        parameters = []
        for index in range(min(raw.vlen, MAX_PARAMETERS)):
            name_offset, type_id = self._btf.words(raw.at + 2 * index, 2)
            is_last = index == raw.vlen - 1
            if is_last and not name_offset and not type_id:
                parameters.append("...")
                continue
            name = self._btf.string(name_offset) if name_offset else ""
            parameters.append(self.declaration(type_id, name, depth + 1))
        return ", ".join(parameters) or "void"


class _Reading:
    """One value being read, with the count of its parts."""

    def __init__(self, types: CTypes, source: Btf) -> None:
        self._types = types
        self._btf = source
        self._count = 0
        self._enumerators: dict[int, dict[int, int]] = {}

    def value(self, type_id: int, bit_offset: int, bit_size: int, data: bytes, depth: int) -> Value:
        """A type's value at a bit offset of `data`."""
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise UnsupportedFormat(self._btf.name, f"type {type_id} has more than {MAX_VALUES} parts")
        if type_id == 0:
            return Scalar(ScalarKind.UNKNOWN, None)

        plain_id, raw = self._types.resolved(type_id)
        if raw.kind in _COMPOUND:
            return Compound(tuple(self._members(plain_id, bit_offset, data, depth)))
        if raw.kind == kinds.ARRAY:
            return self._array(raw, bit_offset, data, depth)

        size = _POINTER_SIZE if raw.kind == kinds.PTR else raw.value
        if raw.kind not in _NUMBERS or not 0 < size <= _MAX_NUMBER_SIZE:
            return Scalar(ScalarKind.UNKNOWN, None)

        bits = bit_size or 8 * size
        start = bit_offset // 8
        end = -(-(bit_offset + bits) // 8)
        if end > len(data):
            return Scalar(ScalarKind.UNKNOWN, None)

        number = int.from_bytes(data[start:end], "little") >> bit_offset % 8 & (1 << bits) - 1
        return self._scalar(raw, number, bits)

    def _members(self, type_id: int, base: int, data: bytes, depth: int) -> Iterator[tuple[str, Value]]:
        """Names and values of a structure's members, `base` bits into `data`; those of anonymous ones among them."""
        for field in self._types.fields(type_id):
            value = self.value(field.type_id, base + field.bit_offset, field.bit_size, data, depth + 1)
            if not field.name and isinstance(value, Compound):
                yield from value.members
            elif field.name:
                yield field.name, value

    def _array(self, raw: RawType, bit_offset: int, data: bytes, depth: int) -> Value:
        """An array's elements, or its text."""
        element, _, count = self._btf.words(raw.at, 3)
        size = self._types.size(element) if element else 0
        count = min(count, MAX_VALUES) if size else 0

        start = bit_offset // 8
        if element and size == 1 and self._is_text(element):
            text = data[start : start + count].split(b"\0", 1)[0]
            if all(32 <= byte < 127 for byte in text):
                return Scalar(ScalarKind.TEXT, text.decode("ascii"))

        values = (self.value(element, bit_offset + 8 * size * index, 0, data, depth + 1) for index in range(count))
        return Elements(tuple(values))

    def _is_text(self, type_id: int) -> bool:
        """Whether a type is `char`: by its name, since pahole, which writes kernels' BTF, leaves the encoding unset."""
        _, raw = self._types.resolved(type_id)
        if raw.kind != kinds.INT:
            return False
        return raw.name == "char" or bool(self._btf.words(raw.at, 1)[0] >> 24 & _CHAR)

    def _scalar(self, raw: RawType, number: int, bits: int) -> Scalar:
        """A number as its type means it; `bits` is how wide it was in memory."""
        if raw.kind == kinds.PTR:
            return Scalar(ScalarKind.POINTER, number)
        if raw.kind == kinds.INT:
            encoding = self._btf.words(raw.at, 1)[0] >> 24
            if encoding & _BOOL:
                return Scalar(ScalarKind.BOOL, number)
            return Scalar(ScalarKind.INT, signed(number, bits) if encoding & _SIGNED else number)
        number = signed(number, bits) if raw.flag else number
        return Scalar(ScalarKind.ENUM, self._enumerator(raw, number) or number)

    def _enumerator(self, raw: RawType, number: int) -> str | None:
        """The name of an enumeration's value; of equal values the first."""
        if raw.at not in self._enumerators:
            self._enumerators[raw.at] = self._values(raw)
        name = self._enumerators[raw.at].get(number)
        return None if name is None else self._btf.string(name)

    def _values(self, raw: RawType) -> dict[int, int]:
        """Where the names of an enumeration's values are, by value."""
        halves = 1 if raw.kind == kinds.ENUM else 2
        step = 1 + halves
        words = self._btf.words(raw.at, step * raw.vlen)

        names: dict[int, int] = {}
        for place in range(0, len(words), step):
            name_offset, *value_words = words[place : place + step]
            value = sum(word << 32 * number for number, word in enumerate(value_words))
            if raw.flag:
                value = signed(value, 32 * halves)
            names.setdefault(value, name_offset)
        return names
