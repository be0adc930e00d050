"""How does C write a type?"""

from __future__ import annotations

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.typed.types import (
    MAX_DEPTH,
    ArrayType,
    CompoundType,
    EnumType,
    FunctionType,
    IncompleteType,
    PointerType,
    QualifiedType,
    Type,
    TypedefType,
    VoidType,
)

# Functions that take functions, and names that lie in each other, could make a line of any length.
MAX_NAME = 4096
MAX_PARTS = 1 << 11


def declaration(type_: Type, name: str = "") -> str:
    """A declaration of `name` with that type, as in C.

    Args:
        type_: the type.
        name: what is declared; empty for the type alone.

    Raises:
        UnsupportedFormat: it is longer, or deeper, than anybody would write.
    """
    return _Writing().declaration(type_, name, 0)


def type_name(type_: Type) -> str:
    """A type without its definition, as in a cast."""
    return declaration(type_)


class _Writing:
    """One declaration being written, with the count of its parts."""

    def __init__(self) -> None:
        self._count = 0

    def declaration(self, type_: Type, name: str, depth: int) -> str:
        """A declaration of `name` inside `depth` others."""
        self._count += 1
        if depth > MAX_DEPTH:
            raise UnsupportedFormat("a declaration", f"types nested deeper than {MAX_DEPTH}")
        if self._count > MAX_PARTS:
            raise UnsupportedFormat("a declaration", f"more than {MAX_PARTS} parts")
        if len(name) > MAX_NAME:
            raise UnsupportedFormat("a declaration", f"more than {MAX_NAME} characters")

        # A declaration is written from the name outwards: what the name is, is put around it, and the rest goes on with that.
        if isinstance(type_, PointerType):
            target = _visible(type_.target)
            wrapped = f"(*{name})" if isinstance(target, ArrayType | FunctionType) else f"*{name}"
            return self.declaration(target, wrapped, depth + 1)
        if isinstance(type_, ArrayType):
            length = "" if type_.length is None else type_.length
            return self.declaration(type_.target, f"{name}[{length}]", depth + 1)
        if isinstance(type_, FunctionType):
            return self.declaration(type_.result, f"{name}({self._parameters(type_, depth)})", depth + 1)
        if isinstance(type_, QualifiedType):
            target = _visible(type_.target)
            # What qualifies a pointer stands behind its star, everything else in front.
            if isinstance(target, PointerType):
                return self.declaration(target, f"{type_.name} {name}".rstrip(), depth + 1)
            # gcc qualifies an array and its elements; C writes it once.
            if isinstance(target, ArrayType) and _is_element_qualified(target, type_.name):
                return self.declaration(target, name, depth + 1)
            return f"{type_.name} {self.declaration(target, name, depth + 1)}"
        if isinstance(type_, TypedefType) and not type_.name:
            return self.declaration(type_.target, name, depth + 1)
        return f"{_base_name(type_)} {name}".rstrip()

    def _parameters(self, function: FunctionType, depth: int) -> str:
        """What stands between a function's parentheses."""
        parameters = [self.declaration(type_, name, depth + 1) for name, type_ in function.parameters]
        if function.is_variadic:
            parameters.append("...")
        return ", ".join(parameters) or "void"


def _visible(type_: Type) -> Type:
    """A type without annotations that C does not write."""
    for _ in range(MAX_DEPTH):
        if not isinstance(type_, TypedefType) or type_.name:
            break
        type_ = type_.target
    return type_


def _is_element_qualified(array: ArrayType, qualifier: str) -> bool:
    """Whether an array's elements have the qualifier."""
    element: Type = array
    for _ in range(MAX_DEPTH):
        if isinstance(element, QualifiedType) and element.name == qualifier:
            return True
        if not isinstance(element, ArrayType | QualifiedType):
            break
        element = _visible(element.target)
    return False


def _base_name(type_: Type) -> str:
    """A type's own name, with `struct` and the like in front."""
    if isinstance(type_, VoidType):
        return "void"
    if isinstance(type_, CompoundType | IncompleteType):
        return f"{type_.keyword} {type_.name or '{...}'}"
    if isinstance(type_, EnumType):
        return f"enum {type_.name or '{...}'}"
    return type_.name or "?"
