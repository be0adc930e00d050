"""Which type has this name: in the image, in a module, in debugging information that was given?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from orcdbg.base.errors import NotFound
from orcdbg.typed.types import (
    VOID,
    EnumType,
    FloatType,
    FunctionType,
    IncompleteType,
    IntKind,
    IntType,
    Type,
)

KEYWORDS = ("struct", "union", "enum")

# What C calls its integers besides their shortest names: words in any order, `int` where it changes nothing.
_SIZES = {"char": 1, "short": 2, "int": 4, "long": 8, "long long": 8, "__int128": 16}
_CHARACTERS = ("char",)
_NO_INTEGERS: Mapping[str, Type] = {
    "void": VOID,
    "_Bool": IntType("_Bool", 1, False, IntKind.BOOL),
    "bool": IntType("_Bool", 1, False, IntKind.BOOL),
    "float": FloatType("float", 4),
    "double": FloatType("double", 8),
}


class TypeSource(Protocol):
    """Something that knows types by name."""

    def find(self, keyword: str, name: str) -> Type | None:
        """The definition of a name; `keyword` is `struct`, `union`, `enum`, or empty for a typedef or basic type."""

    def variable(self, name: str) -> Type | None:
        """The type of a variable."""

    def function(self, name: str) -> FunctionType | None:
        """The type of a function."""

    def enumerator(self, name: str) -> tuple[EnumType, int] | None:
        """The enumeration that has an enumerator, and its value."""


def basic_type(name: str) -> Type | None:
    """A type that C itself has, by any of its spellings: `long unsigned int`, `unsigned long`."""
    if name in _NO_INTEGERS:
        return _NO_INTEGERS[name]
    words = name.split()
    signs = [word for word in words if word in ("unsigned", "signed")]
    left = [word for word in words if word not in signs]
    if not words or len(signs) > 1:
        return None
    if "int" in left and len(left) > 1:
        left.remove("int")
    plain = " ".join(left) or "int"
    if plain not in _SIZES:
        return None
    is_char = plain in _CHARACTERS
    is_unsigned = signs == ["unsigned"]
    sign = "unsigned " if is_unsigned else "signed " if signs and is_char else ""
    return IntType(sign + plain, _SIZES[plain], not is_unsigned, IntKind.CHAR if is_char else IntKind.NUMBER)


class Catalog:
    """Types of several sources; the first that knows a name counts.

    Args:
        sources: give them, in the order of their precedence: the image's own, then the modules'. They are asked one by one, as
            far as a question needs.
        problems: gives, in lines, what could not be read of the sources that were asked.
        structures: gives the names of structures and unions that a name may have been meant for.
    """

    def __init__(
        self,
        *sources: Callable[[], Iterator[TypeSource] | Sequence[TypeSource]],
        problems: Callable[[], Sequence[str]] = tuple,
        structures: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._sources = sources
        self._problems = problems
        self._structures = structures
        self._found: dict[tuple[str, str], Type | None] = {}

    def sources(self) -> Iterator[TypeSource]:
        """All sources, each group opened when it is come to."""
        for group in self._sources:
            yield from group()

    def find(self, keyword: str, name: str) -> Type | None:
        """The definition of a name, None where nobody has it."""
        key = keyword, name
        if key not in self._found:
            self._found[key] = self._search(keyword, name)
        return self._found[key]

    def _search(self, keyword: str, name: str) -> Type | None:
        for source in self.sources():
            found = source.find(keyword, name)
            if found is not None and not isinstance(found, IncompleteType):
                return found
        return None if keyword else basic_type(name)

    def get(self, name: str) -> Type:
        """The type that a user names: a structure, union, typedef, enumeration or basic type; `struct` may be left out.

        Raises:
            NotFound: there is none.
        """
        words = name.split()
        if len(words) == 2 and words[0] in KEYWORDS:
            found = self.find(words[0], words[1])
        else:
            plain = " ".join(words)
            candidates = (self.find(keyword, plain) for keyword in ("struct", "union", "", "enum"))
            found = next((candidate for candidate in candidates if candidate is not None), None)
        if found is None:
            raise NotFound("type", name, lambda: self.hint_for(words[-1] if words else name))
        return found

    def hint_for(self, name: str) -> str | None:
        """What may help where a name is unknown: names that are near, and what could not be read."""
        from orcdbg.base.near_names import did_you_mean  # only where something went wrong

        return "; ".join(part for part in (did_you_mean(self.near(name)), self.unread) if part) or None

    def near(self, name: str) -> list[str]:
        """The structures and unions that somebody may have meant."""
        from orcdbg.base.near_names import near_names  # only where something went wrong

        return near_names(name, self._structures())

    @property
    def unread(self) -> str | None:
        """Why a name may be unknown that the kernel has: a source that could not be read; None where all could be."""
        lines = self._problems()
        if not lines:
            return None
        more = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
        return f"it may be in what could not be read: {lines[0]}{more}"

    def completed(self, type_: Type) -> Type:
        """The definition of a type that is only declared where it is from; else the type itself."""
        if not isinstance(type_, IncompleteType) or not type_.name:
            return type_
        return self.find(type_.keyword, type_.name) or type_

    def enumerator(self, name: str) -> tuple[EnumType, int] | None:
        """The enumeration that has an enumerator, and its value."""
        for source in self.sources():
            found = source.enumerator(name)
            if found is not None:
                return found
        return None

    def variable(self, name: str) -> Type | None:
        """The type of a variable, by the first source that describes it."""
        return next(
            (found for found in (source.variable(name) for source in self.sources()) if found is not None), None
        )

    def function(self, name: str) -> FunctionType | None:
        """The type of a function, by the first source that describes it."""
        return next(
            (found for found in (source.function(name) for source in self.sources()) if found is not None), None
        )
