"""What does the kernel hold at this place, as C sees it?

An `Object` is a C expression's result: a type, and where its bytes are. Nothing is read before somebody asks for a number, so
that a member of a structure costs the member and not the structure. Names that end in `_` are ours, so that any other name
is a member of the kernel's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import Corrupt, MemoryFault, NotFound, OrcdbgError, UsageError
from orcdbg.base.reading import read_cstring
from orcdbg.base.reasons import WhyNoValue
from orcdbg.base.sizes import U64
from orcdbg.typed.declarations import type_name
from orcdbg.typed.types import (
    ArrayType,
    CompoundType,
    EnumType,
    FloatType,
    FunctionType,
    IncompleteType,
    IntType,
    PointerType,
    Type,
    VoidType,
    array_of,
    is_text_type,
    pointer_to,
    resolved,
)
from orcdbg.typed.values import Compound, Elements, Scalar, ScalarKind, Value, read_number, read_value

if TYPE_CHECKING:
    from orcdbg.typed.program import Program

# A type that is looked at whole; a larger one is asked for by its parts.
MAX_WHOLE = 16 << 20
MAX_STRING = 4096


class ValueUnavailable(OrcdbgError):
    """A value that is not there to be read: a variable that was optimised away, a register that was not saved."""

    kind = "unavailable"

    def __init__(self, message: str, code: WhyNoValue) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes at an address; a bit-field begins `bit_offset` bits later."""

    address: int
    bit_offset: int = 0


@dataclass(frozen=True, slots=True)
class Immediate:
    """Bytes that are no memory's, such as a number that was computed, or a register's."""

    data: bytes
    bit_offset: int = 0


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing to read, and why."""

    why: str
    code: WhyNoValue


Place = InMemory | Immediate | Absent


class Object:
    """A typed value.

    Args:
        program: the kernel that it is of.
        type_: its C type.
        place: where its bytes are.
        bit_size: of a bit-field, else 0.

    Every method that reads raises MemoryFault where memory is not there, ValueUnavailable where the value is not, and
    UnsupportedFormat where its type is damaged; one that looks for a member raises NotFound.
    """

    __slots__ = ("bit_size_", "place_", "program_", "type_")

    def __init__(self, program: Program, type_: Type, place: Place, bit_size: int = 0) -> None:
        self.program_ = program
        self.type_ = type_
        self.place_ = place
        self.bit_size_ = bit_size

    # What it is

    @property
    def plain_type_(self) -> Type:
        """Its type without typedefs and qualifiers; completed, where another source defines what is only declared."""
        return self.program_.completed(resolved(self.type_))

    @property
    def address_(self) -> int | None:
        """Where it is in memory, None where it is not."""
        return self.place_.address if isinstance(self.place_, InMemory) else None

    @property
    def size_(self) -> int:
        """Its bytes."""
        return self.plain_type_.size

    def __repr__(self) -> str:
        where = f" at {self.place_.address:#x}" if isinstance(self.place_, InMemory) else ""
        return f"<Object {type_name(self.type_)}{where}>"

    # Its parts

    def __getattr__(self, name: str) -> Object:
        if name.startswith("__") or name.endswith("_"):
            raise AttributeError(name)
        try:
            return self.member_(name)
        except NotFound as error:
            # hasattr() and getattr() with a default ask whether this kernel has the member.
            raise AttributeError(error.message) from error

    def member_(self, path: str) -> Object:
        """The member at a dotted path; of a pointer, the member of what it points to, as `->`."""
        plain = self.plain_type_
        if isinstance(plain, PointerType):
            return self.deref_().member_(path)
        if not isinstance(plain, CompoundType):
            raise UsageError(f"{type_name(self.type_)} has no members, so no {path}")
        member = plain.member(path)
        return Object(self.program_, member.type, self._moved(member.bit_offset), member.bit_size)

    def has_member_(self, path: str) -> bool:
        """Whether its type, or what it points to, has that member."""
        plain = self.plain_type_
        if isinstance(plain, PointerType):
            plain = self.program_.completed(resolved(plain.target))
        return isinstance(plain, CompoundType) and plain.find(path) is not None

    def _moved(self, bits: int) -> Place:
        place = self.place_
        if isinstance(place, InMemory):
            total = place.bit_offset + bits
            return InMemory(place.address + total // 8 & U64, total % 8)
        if isinstance(place, Immediate):
            return Immediate(place.data, place.bit_offset + bits)
        return place

    def __getitem__(self, index: int) -> Object:
        plain = self.plain_type_
        if isinstance(plain, PointerType):
            return self.deref_(index)
        if not isinstance(plain, ArrayType):
            raise UsageError(f"{type_name(self.type_)} is no array")
        if plain.length is not None and not 0 <= index < plain.length:
            # Python ends a loop over an object so.
            raise IndexError(index)
        return Object(self.program_, plain.target, self._moved(8 * self._element_size(plain.target) * index))

    def _element_size(self, element: Type) -> int:
        size = self.program_.completed(resolved(element)).size
        if not size and not isinstance(resolved(element), VoidType | FunctionType):
            raise UsageError(f"the size of {type_name(element)} is not known")
        return size or 1  # as GNU C counts for void and functions

    def __len__(self) -> int:
        plain = self.plain_type_
        if not isinstance(plain, ArrayType) or plain.length is None:
            raise TypeError(f"{type_name(self.type_)} has no length")
        return plain.length

    def __iter__(self) -> Iterator[Object]:
        for index in range(len(self)):
            yield self[index]

    def deref_(self, index: int = 0) -> Object:
        """What a pointer points to, or the element so many behind that."""
        plain = self.plain_type_
        if isinstance(plain, ArrayType):
            return self[index]
        if not isinstance(plain, PointerType):
            raise UsageError(f"{type_name(self.type_)} is no pointer")
        offset = index * self._element_size(plain.target) if index else 0
        return Object(self.program_, plain.target, InMemory(int(self) + offset & U64))

    def address_of_(self) -> Object:
        """A pointer to this object, `&`."""
        if not isinstance(self.place_, InMemory):
            raise UsageError("a value that is not in memory has no address")
        if self.bit_size_:
            raise UsageError("a bit-field has no address")
        return self.program_.value(pointer_to(self.type_), self.place_.address)

    # Its value

    def bytes_(self) -> bytes:
        """Its bytes; of a bit-field those that hold its bits, beginning with the first."""
        if self.bit_size_:
            first = self.place_.bit_offset if isinstance(self.place_, InMemory | Immediate) else 0
            size = -(-(first % 8 + self.bit_size_) // 8)
        else:
            size = self.size_
        if size > MAX_WHOLE:
            raise UsageError(f"{type_name(self.type_)} is too large to read whole: {size} bytes")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        place = self.place_
        if isinstance(place, InMemory):
            return self.program_.memory.read(place.address, size)
        if isinstance(place, Immediate):
            start = place.bit_offset // 8
            return place.data[start : start + size]
        raise ValueUnavailable(place.why, place.code)

    @property
    def _first_bit(self) -> int:
        return self.place_.bit_offset % 8 if isinstance(self.place_, InMemory | Immediate) else 0

    def number_(self) -> int | float:
        """The number of an integer, enumeration, pointer or floating point value; the address of an array or function."""
        plain = self.plain_type_
        if isinstance(plain, ArrayType | FunctionType):
            address = self.address_
            if address is None:
                raise UsageError(f"{type_name(self.type_)} is not in memory")
            return address
        if not isinstance(plain, IntType | EnumType | PointerType | FloatType):
            raise UsageError(f"{type_name(self.type_)} is not a number")
        number = read_number(plain, self.bytes_(), self._first_bit, self.bit_size_)
        if number is None:
            raise Corrupt(f"{type_name(self.type_)}: its bytes are cut off")
        return number

    def __int__(self) -> int:
        return int(self.number_())

    __index__ = __int__

    def __float__(self) -> float:
        return float(self.number_())

    def __bool__(self) -> bool:
        return bool(self.number_())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Object):
            return self.number_() == other.number_()
        return self.number_() == other if isinstance(other, int | float) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # two objects are equal by what memory holds now

    def value_(self) -> Value:
        """All of it, as `values` has it: one read, and what memory lacks of a structure is unknown, not an error."""
        plain = self.plain_type_
        if isinstance(plain, CompoundType | ArrayType):
            return read_value(plain, self._available(), self._first_bit)
        return read_value(plain, self.bytes_(), self._first_bit, self.bit_size_)

    def _available(self) -> bytes:
        """As `bytes_`, of a structure that memory ends in the middle of as far as it goes."""
        try:
            return self.bytes_()
        except MemoryFault as error:
            if self.address_ is None or not self.address_ < error.address < self.address_ + self.size_:
                raise
            return self._read(error.address - self.address_)

    def python_(self) -> object:
        """All of it as Python's own values: numbers, names of enumerators, text, lists, dictionaries; None for the unknown."""
        return _python(self.value_())

    def string_(self, limit: int = MAX_STRING) -> str:
        """Text of a character array, or at a pointer, up to its zero; undecodable bytes as backslash escapes."""
        plain = self.plain_type_
        if isinstance(plain, ArrayType) and plain.length is not None:
            data = self.bytes_()[:limit].split(b"\0", 1)[0]
        else:
            data = read_cstring(self.program_.memory, int(self), limit)
        return data.decode("utf-8", "backslashreplace")

    def is_text_(self) -> bool:
        """Whether it is an array of characters."""
        plain = self.plain_type_
        return isinstance(plain, ArrayType) and is_text_type(plain.target)

    # Another view of it

    def cast_(self, type_: Type | str) -> Object:
        """The same number as another type; a structure, as C does not but debuggers do, as another at its address."""
        target = self.program_.type(type_) if isinstance(type_, str) else type_
        plain = self.program_.completed(resolved(target))
        if isinstance(plain, CompoundType | ArrayType | FunctionType | IncompleteType):
            return Object(self.program_, target, self.place_)
        return self.program_.value(target, self.number_())

    def container_of_(self, type_: Type | str, path: str) -> Object:
        """The structure that this pointer's target is a member of; a pointer, as the kernel's container_of() returns."""
        outer = self.program_.type(type_) if isinstance(type_, str) else type_
        plain = self.program_.completed(resolved(outer))
        if not isinstance(plain, CompoundType):
            raise UsageError(f"{type_name(outer)} is no structure")
        member = plain.member(path)
        return self.program_.value(pointer_to(outer), int(self) - member.bit_offset // 8 & U64)

    def first_of_(self, *paths: str) -> Object | None:
        """The first of several members that this kernel's structure has, None where it has none of them."""
        return next((self.member_(path) for path in paths if self.has_member_(path)), None)

    def elements_(self, count: int) -> Object:
        """At a pointer, an array of so many."""
        plain = self.plain_type_
        element = plain.target if isinstance(plain, PointerType | ArrayType) else self.type_
        address = int(self) if isinstance(plain, PointerType) else self.address_
        if address is None:
            raise UsageError("a value that is not in memory is no array")
        return Object(self.program_, array_of(element, count), InMemory(address))


def _python(value: Value) -> object:
    if isinstance(value, Scalar):
        return bool(value.value) if value.kind is ScalarKind.BOOL else value.value
    if isinstance(value, Elements):
        return [_python(element) for element in value.elements]
    assert isinstance(value, Compound)
    return {name: _python(inner) for name, inner in value.members}
