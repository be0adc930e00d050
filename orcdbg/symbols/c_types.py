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

MAX_DEPTH, MAX_VALUES, MAX_NAME, MAX_PARAMETERS, MAX_PARTS = 32, 1 << 16, 4096, 64, 1 << 11
_WORDS = {kinds.CONST: "const", kinds.VOLATILE: "volatile", kinds.RESTRICT: "restrict"}
_KEYWORD = {kinds.STRUCT: "struct", kinds.UNION: "union", kinds.ENUM: "enum", kinds.ENUM64: "enum"}
_SIGNED, _CHAR, _BOOL = 1, 2, 4


class Field(NamedTuple):
    """A member: bits from the start of its structure, bits of a bit-field (else 0). An anonymous one has no name."""

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
    """A value without parts."""

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
    """The types of one kernel."""

    def __init__(self, types: Btf) -> None:
        self._btf = types

    def find(self, name: str) -> int:
        """The structure, union, or typedef of one, of that name; NotFound without."""
        for kind in (kinds.STRUCT, kinds.UNION, kinds.TYPEDEF):
            found = self._btf.find(kind, name)
            if found is not None and self.resolved(found)[1].kind in (kinds.STRUCT, kinds.UNION):
                return found
        raise NotFound("structure", name)

    def resolved(self, type_id: int) -> tuple[int, RawType]:
        """A type without typedefs and qualifiers."""
        for _ in range(MAX_DEPTH):
            raw = self._btf.raw(type_id)
            if raw.kind not in _WORDS and raw.kind not in (kinds.TYPEDEF, kinds.TYPE_TAG):
                return type_id, raw
            type_id = raw.value
        raise UnsupportedFormat(self._btf.name, f"type {type_id}: a chain of more than {MAX_DEPTH} qualifiers")

    def size(self, type_id: int) -> int:
        """Bytes of a type."""
        return self._btf.size_of(type_id) if type_id else 0

    def keyword(self, type_id: int) -> str:
        """`struct name` or `union name` of a structure, without typedefs; the name alone of anything else."""
        _, raw = self.resolved(type_id)
        return f"{_KEYWORD.get(raw.kind, '')} {raw.name}".strip()

    def fields(self, type_id: int) -> list[Field]:
        """The direct members of a structure or union; none of another type."""
        _, raw = self.resolved(type_id)
        if raw.kind not in (kinds.STRUCT, kinds.UNION):
            return []
        found = []
        for index in range(raw.vlen):
            name, member, where = self._btf.words(raw.at + 3 * index, 3)
            bits, where = (where >> 24, where & 0xFFFFFF) if raw.flag else (0, where)
            if not bits and member:
                bits, shift = self._narrow(member)
                where += shift
            found.append(Field(self._btf.string(name) if name else "", member, where, bits))
        return found

    def _narrow(self, type_id: int) -> tuple[int, int]:
        """Bits and first bit of an integer type that does not fill its bytes, as old encoders made for bit-fields."""
        _, raw = self.resolved(type_id)
        if raw.kind != kinds.INT:
            return 0, 0
        encoding = self._btf.words(raw.at, 1)[0]
        bits, shift = encoding & 0xFF, encoding >> 16 & 0xFF
        return (bits, shift) if bits != 8 * raw.value else (0, 0)

    def is_compound(self, type_id: int) -> bool:
        """True for a structure or union."""
        return bool(type_id) and self.resolved(type_id)[1].kind in (kinds.STRUCT, kinds.UNION)

    def member(self, type_id: int, path: str) -> Field:
        """The member at a dotted path; anonymous structures are looked into.

        Raises:
            NotFound: there is none.
        """
        offset, here = 0, type_id
        found: Field | None = None
        for step in path.split("."):
            found = self._named(here, step)
            if found is None:
                raise NotFound("member", f"{self.keyword(type_id)}.{path}")
            offset, here = offset + found.bit_offset, found.type_id
        assert found is not None
        return Field(path, found.type_id, offset, found.bit_size)

    def _named(self, type_id: int, name: str) -> Field | None:
        """The member of that name, those of anonymous members included; UnsupportedFormat where they are without end."""
        pending, seen = [(type_id, 0)], 0
        while pending:
            here, base = pending.pop()
            inner = []
            for field in self.fields(here):
                if field.name == name:
                    return field._replace(bit_offset=base + field.bit_offset)
                if not field.name and self.is_compound(field.type_id):
                    inner.append((field.type_id, base + field.bit_offset))
                seen += 1
            if seen > MAX_MEMBERS:
                raise UnsupportedFormat(self._btf.name, f"type {type_id} has more than {MAX_MEMBERS} members")
            pending += reversed(inner)
        return None

    def declaration(self, type_id: int, name: str) -> str:
        """A declaration of `name` with that type, as in C.

        Raises:
            UnsupportedFormat: it is longer, or deeper, than anybody would write.
        """
        return _Writing(self._btf).declaration(type_id, name, 0)

    def read(self, field: Field, data: bytes) -> Value:
        """A member's value in the bytes of its structure.

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
        raw = self._btf.raw(type_id)
        if raw.kind == kinds.PTR:
            inner = self._btf.raw(raw.value).kind if raw.value else 0
            wrapped = f"(*{name})" if inner in (kinds.ARRAY, kinds.FUNC_PROTO) else f"*{name}"
            return self.declaration(raw.value, wrapped, depth + 1)
        if raw.kind == kinds.ARRAY:
            element, _, count = self._btf.words(raw.at, 3)
            return self.declaration(element, f"{name}[{count}]", depth + 1)
        if raw.kind == kinds.FUNC_PROTO:
            return self.declaration(raw.value, f"{name}({self._parameters(raw, depth)})", depth + 1)
        if raw.kind in _WORDS:
            word = _WORDS[raw.kind]
            if raw.value and self._btf.raw(raw.value).kind == kinds.PTR:
                return self.declaration(raw.value, f"{word} {name}".rstrip(), depth + 1)
            return f"{word} {self.declaration(raw.value, name, depth + 1)}"
        if raw.kind == kinds.TYPE_TAG:
            return self.declaration(raw.value, name, depth + 1)
        return f"{self._base(raw)} {name}".rstrip()

    def _base(self, raw: RawType) -> str:
        keyword = _KEYWORD.get(raw.kind)
        if raw.kind == kinds.FWD:
            keyword = "union" if raw.flag else "struct"
        return f"{keyword} {raw.name or '{...}'}" if keyword else raw.name or "?"

    def _parameters(self, raw: RawType, depth: int) -> str:
        found = []
        for index in range(min(raw.vlen, MAX_PARAMETERS)):
            name, kind = self._btf.words(raw.at + 2 * index, 2)
            is_last = index == raw.vlen - 1
            if is_last and not name and not kind:
                found.append("...")
            else:
                found.append(self.declaration(kind, self._btf.string(name) if name else "", depth + 1))
        return ", ".join(found) or "void"


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
        found, raw = self._types.resolved(type_id)
        if raw.kind in (kinds.STRUCT, kinds.UNION):
            return Compound(tuple(self._members(found, bit_offset, data, depth)))
        if raw.kind == kinds.ARRAY:
            return self._array(raw, bit_offset, data, depth)
        size = 8 if raw.kind == kinds.PTR else raw.value
        if raw.kind not in (kinds.PTR, kinds.INT, kinds.ENUM, kinds.ENUM64) or not 0 < size <= 16:
            return Scalar(ScalarKind.UNKNOWN, None)
        bits = bit_size or 8 * size
        start, end = bit_offset // 8, -(-(bit_offset + bits) // 8)
        if end > len(data):
            return Scalar(ScalarKind.UNKNOWN, None)
        number = int.from_bytes(data[start:end], "little") >> bit_offset % 8 & (1 << bits) - 1
        return self._scalar(raw, number, bits)

    def _members(self, type_id: int, base: int, data: bytes, depth: int) -> Iterator[tuple[str, Value]]:
        for field in self._types.fields(type_id):
            value = self.value(field.type_id, base + field.bit_offset, field.bit_size, data, depth + 1)
            if not field.name and isinstance(value, Compound):
                yield from value.members
            elif field.name:
                yield field.name, value

    def _array(self, raw: RawType, bit_offset: int, data: bytes, depth: int) -> Value:
        element, _, count = self._btf.words(raw.at, 3)
        size = self._types.size(element) if element else 0
        start = bit_offset // 8
        if count > MAX_VALUES or not size:
            count = 0 if not size else MAX_VALUES
        _, kind = self._types.resolved(element) if element else (0, None)
        if kind is not None and kind.kind == kinds.INT and size == 1 and self._is_text(kind):
            text = data[start : start + count].split(b"\0", 1)[0]
            if all(32 <= byte < 127 for byte in text):
                return Scalar(ScalarKind.TEXT, text.decode("ascii"))
        return Elements(tuple(self.value(element, bit_offset + 8 * size * i, 0, data, depth + 1) for i in range(count)))

    def _is_text(self, raw: RawType) -> bool:
        return raw.name == "char" or bool(self._btf.words(raw.at, 1)[0] >> 24 & _CHAR)

    def _scalar(self, raw: RawType, number: int, bits: int) -> Scalar:
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
        step = 2 if raw.kind == kinds.ENUM else 3
        words, found = self._btf.words(raw.at, step * raw.vlen), dict[int, int]()
        for at in range(0, len(words), step):
            value = sum(half << 32 * place for place, half in enumerate(words[at + 1 : at + step]))
            found.setdefault(signed(value, 32 * (step - 1)) if raw.flag else value, words[at])
        return found
