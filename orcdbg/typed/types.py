"""What is a C type: its parts, its size, its members?

One model for every source of types: BTF of the image, split BTF of a module, DWARF. A type's targets and members are asked
for when somebody looks at them, since a kernel has a hundred thousand types that name each other in circles.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orcdbg.base.errors import NotFound, UnsupportedFormat

# Each of these ends what damaged types could go on with for ever: typedefs of themselves, structures inside of themselves.
# What a kernel has stays far below.
MAX_DEPTH = 32
MAX_MEMBERS = 1 << 15
MAX_SIZE = 256 << 20

POINTER_SIZE = 8


class Type:
    """Any C type.

    Attributes:
        name: its tag, or the name of a basic type or typedef; empty where it has none.
    """

    __slots__ = ("__dict__", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name

    @property
    def size(self) -> int:
        """Bytes; 0 of a type that has no size, such as `void` or a function.

        Raises:
            UnsupportedFormat: damaged, or larger than anybody would read.
        """
        return 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class VoidType(Type):
    """`void`."""


class IntKind(enum.Enum):
    """What an integer is to a reader."""

    NUMBER = enum.auto()
    BOOL = enum.auto()
    CHAR = enum.auto()


class _SizedType(Type):
    """A type that states its size."""

    __slots__ = ("_size",)

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name)
        self._size = size

    @property
    def size(self) -> int:
        """Bytes, as it states; UnsupportedFormat where nobody would read as many."""
        if self._size > MAX_SIZE:
            raise UnsupportedFormat(self.name or "a type", f"{self._size} bytes, more than {MAX_SIZE >> 20} MiB")
        return self._size


class IntType(_SizedType):
    """An integer, a truth value or a character."""

    __slots__ = ("is_signed", "kind")

    def __init__(self, name: str, size: int, is_signed: bool, kind: IntKind = IntKind.NUMBER) -> None:
        super().__init__(name, size)
        self.is_signed = is_signed
        self.kind = kind


class FloatType(_SizedType):
    """A floating point number."""


class EnumType(_SizedType):
    """An enumeration.

    Attributes:
        enumerators: names and values, in the order of the declaration.
    """

    __slots__ = ("enumerators", "is_signed")

    def __init__(self, name: str, size: int, is_signed: bool, enumerators: Sequence[tuple[str, int]]) -> None:
        super().__init__(name, size)
        self.is_signed = is_signed
        self.enumerators = enumerators

    @functools.cached_property
    def names(self) -> Mapping[int, str]:
        """The name of each value; of equal values the first."""
        return {value: name for name, value in reversed(self.enumerators)}


class _TargetType(Type):
    """A type made of another."""

    __slots__ = ("_load",)

    def __init__(self, name: str, target: Callable[[], Type]) -> None:
        super().__init__(name)
        self._load = target

    @functools.cached_property
    def target(self) -> Type:
        """The other type."""
        return self._load()


class PointerType(_TargetType):
    """A pointer to its target."""

    def __init__(self, target: Callable[[], Type]) -> None:
        super().__init__("", target)

    @property
    def size(self) -> int:
        """Those of an address."""
        return POINTER_SIZE


class ArrayType(_TargetType):
    """An array of its target.

    Attributes:
        length: how many elements; None where the declaration leaves it open, `[]`. BTF writes that as 0.
    """

    __slots__ = ("length",)

    def __init__(self, target: Callable[[], Type], length: int | None) -> None:
        super().__init__("", target)
        self.length = length

    @property
    def size(self) -> int:
        """Those of all elements; 0 where their number is left open."""
        elements, element = 1, Type()
        array: Type = self
        for _ in range(MAX_DEPTH):
            if not isinstance(array, ArrayType):
                element = array
                break
            elements *= array.length or 0
            array = resolved(array.target)
        else:
            raise UnsupportedFormat("an array type", f"arrays nested deeper than {MAX_DEPTH}")
        if element.size * elements > MAX_SIZE:
            raise UnsupportedFormat("an array type", f"more than {MAX_SIZE >> 20} MiB")
        return element.size * elements


class TypedefType(_TargetType):
    """A name for its target."""

    @property
    def size(self) -> int:
        """Its target's."""
        return resolved(self).size


class QualifiedType(_TargetType):
    """`const`, `volatile`, `restrict` or `_Atomic`; that word is its name."""

    @property
    def size(self) -> int:
        """Its target's."""
        return resolved(self).size


class Member(NamedTuple):
    """A member of a structure or union.

    Attributes:
        name: empty for an anonymous one.
        type: of the member.
        bit_offset: from the start of the structure.
        bit_size: bits of a bit-field, else 0.
    """

    name: str
    type: Type
    bit_offset: int
    bit_size: int


class CompoundType(_SizedType):
    """A structure or union.

    Args:
        keyword: `struct` or `union`.
        members: gives the direct members, in the order of the declaration.
    """

    __slots__ = ("_load", "keyword")

    def __init__(self, keyword: str, name: str, size: int, members: Callable[[], Sequence[Member]]) -> None:
        super().__init__(name, size)
        self.keyword = keyword
        self._load = members

    @functools.cached_property
    def members(self) -> Sequence[Member]:
        """The direct members, anonymous ones among them."""
        return self._load()

    @functools.cached_property
    def _by_name(self) -> dict[str, Member]:
        """Members by name in the order of the declaration, those of anonymous members among them."""
        found: dict[str, Member] = {}
        pending: list[tuple[Iterator[Member], int]] = [(iter(self.members), 0)]
        seen = 0
        while pending:
            members, base = pending[-1]
            member = next(members, None)
            if member is None:
                pending.pop()
                continue

            seen += 1
            if seen > MAX_MEMBERS:
                raise UnsupportedFormat(self.description, f"more than {MAX_MEMBERS} members")
            at = base + member.bit_offset
            inner = None if member.name else resolved(member.type)
            if member.name:
                found.setdefault(member.name, member._replace(bit_offset=at))
            elif isinstance(inner, CompoundType) and len(pending) <= MAX_DEPTH:
                pending.append((iter(inner.members), at))
        return found

    @property
    def description(self) -> str:
        """`struct name`."""
        return f"{self.keyword} {self.name or '{...}'}"

    def find(self, path: str) -> Member | None:
        """The member at a dotted path, with its offset from this structure's start; None where there is none.

        `name[3]` is no path: an index is of a value, see `objects`.
        """
        first, _, rest = path.partition(".")
        member = self._by_name.get(first)
        if member is None or not rest:
            return member
        inner = resolved(member.type)
        if not isinstance(inner, CompoundType):
            return None
        further = inner.find(rest)
        return None if further is None else further._replace(bit_offset=member.bit_offset + further.bit_offset)

    def member(self, path: str) -> Member:
        """As `find`.

        Raises:
            NotFound: there is no such member.
        """
        found = self.find(path)
        if found is None:
            raise self.unknown(path)
        return found

    def unknown(self, path: str) -> NotFound:
        """The error that a path is for where it leads to no member."""
        return NotFound("member", f"{self.description}.{path}", lambda: self._did_you_mean(path))

    def _did_you_mean(self, path: str) -> str | None:
        from orcdbg.base.near_names import did_you_mean  # only where something went wrong

        return did_you_mean(self._near(path))

    def _near(self, path: str) -> list[str]:
        """Paths that somebody may have meant: with other members where the first unknown one is."""
        from orcdbg.base.near_names import near_names  # only where something went wrong

        first, _, rest = path.partition(".")
        member = self._by_name.get(first)
        if member is None:
            return near_names(first, self.member_names)
        inner = resolved(member.type)
        return [f"{first}.{name}" for name in inner._near(rest)] if isinstance(inner, CompoundType) else []

    @property
    def member_names(self) -> Sequence[str]:
        """Names of all members, those of anonymous ones among them, in the order of the declaration."""
        return list(self._by_name)


class FunctionType(Type):
    """A function.

    Args:
        result: gives what it returns.
        parameters: gives the names, which may be empty, and types.
        is_variadic: whether `...` ends them.
    """

    __slots__ = ("_parameters", "_result", "is_variadic")

    def __init__(
        self, result: Callable[[], Type], parameters: Callable[[], Sequence[tuple[str, Type]]], is_variadic: bool
    ) -> None:
        super().__init__()
        self._result = result
        self._parameters = parameters
        self.is_variadic = is_variadic

    @functools.cached_property
    def result(self) -> Type:
        """What it returns."""
        return self._result()

    @functools.cached_property
    def parameters(self) -> Sequence[tuple[str, Type]]:
        """Names, which may be empty, and types."""
        return self._parameters()


class IncompleteType(Type):
    """A structure, union or enumeration that is declared and not defined where this type is from.

    Attributes:
        keyword: `struct`, `union` or `enum`.
    """

    __slots__ = ("keyword",)

    def __init__(self, keyword: str, name: str) -> None:
        super().__init__(name)
        self.keyword = keyword


VOID = VoidType("void")


def resolved(type_: Type) -> Type:
    """A type without typedefs and qualifiers.

    Raises:
        UnsupportedFormat: they go round in a circle.
    """
    for _ in range(MAX_DEPTH):
        if not isinstance(type_, TypedefType | QualifiedType):
            return type_
        type_ = type_.target
    raise UnsupportedFormat(type_.name or "a type", f"a chain of more than {MAX_DEPTH} qualifiers and typedefs")


def pointer_to(type_: Type) -> PointerType:
    """The type of a pointer to a type."""
    return PointerType(lambda: type_)


def array_of(type_: Type, length: int | None) -> ArrayType:
    """The type of an array of a type."""
    return ArrayType(lambda: type_, length)


def is_text_type(type_: Type) -> bool:
    """Whether a type is `char`: by its name too, since pahole, which writes kernels' BTF, leaves the encoding unset."""
    plain = resolved(type_)
    return isinstance(plain, IntType) and plain.size == 1 and (plain.kind is IntKind.CHAR or plain.name == "char")
