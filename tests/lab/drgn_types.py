"""Types as drgn has them, compared with ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orcdbg.typed.catalog import basic_type
from orcdbg.typed.types import (
    ArrayType,
    CompoundType,
    EnumType,
    FloatType,
    FunctionType,
    IncompleteType,
    IntKind,
    IntType,
    PointerType,
    QualifiedType,
    Type,
    TypedefType,
    VoidType,
)

DEPTH = 4
_KINDS: dict[type[Type], set[str]] = {
    VoidType: {"VOID"},
    IntType: {"INT", "BOOL"},
    FloatType: {"FLOAT"},
    CompoundType: {"STRUCT", "UNION", "CLASS"},
    IncompleteType: {"STRUCT", "UNION", "CLASS", "ENUM"},
    EnumType: {"ENUM"},
    TypedefType: {"TYPEDEF"},
    PointerType: {"POINTER"},
    ArrayType: {"ARRAY"},
    FunctionType: {"FUNCTION"},
}
_QUALIFIERS = {"CONST": "const", "VOLATILE": "volatile", "RESTRICT": "restrict", "ATOMIC": "_Atomic"}


def opened(drgn: Any, scene: Any, modules: Sequence[Path] = ()) -> Any:
    """drgn over the same files, and some modules'."""
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    program.load_debug_info([str(scene.vmlinux), *map(str, modules)])
    return program


def without_qualifiers(type_: Type) -> tuple[Type, set[str]]:
    """A type, and the qualifiers that it has; C has a qualified array's elements qualified."""
    words = set[str]()
    while isinstance(type_, QualifiedType):
        words.add(type_.name)
        type_ = type_.target
    return type_, words


class Comparison:
    """Compares types of both, structures by their members to some depth."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._seen: set[tuple[str, str]] = set()

    def differing(self, ours: Type, theirs: Any, path: str, depth: int = 0) -> Iterator[str]:
        """Where they are not the same."""
        mine, words = without_qualifiers(ours)
        masks = [word for word in type(theirs.qualifiers) if word & theirs.qualifiers]
        expected = {_QUALIFIERS[word.name] for word in masks if word.name in _QUALIFIERS}
        kind = theirs.kind.name
        self.counts["types"] += 1
        if words != expected and kind != "ARRAY":
            yield f"{path}: {words}, not {expected}"

        compare = {
            IntType: self._integer,
            TypedefType: self._typedef,
            PointerType: self._pointer,
            ArrayType: self._array,
            EnumType: self._enumeration,
            FunctionType: self._function,
            IncompleteType: self._incomplete,
            CompoundType: self._compound,
        }.get(type(mine))  # fmt: skip
        if kind not in _KINDS[type(mine)]:
            yield f"{path}: {mine!r}, not {kind} {theirs}"
        elif compare is not None:
            yield from compare(mine, theirs, path, depth)

    def _integer(self, mine: Any, theirs: Any, path: str, depth: int) -> Iterator[str]:
        # drgn has one spelling for C's own integers.
        named = basic_type(mine.name) or mine
        is_same = mine.size == theirs.size and named.name == theirs.name
        is_same = is_same and (mine.kind is IntKind.BOOL) == (theirs.kind.name == "BOOL")
        if not is_same or (theirs.kind.name == "INT" and mine.is_signed != theirs.is_signed):
            yield f"{path}: {mine.name} {mine.size} {mine.is_signed}, not {theirs}"

    def _typedef(self, mine: Any, theirs: Any, path: str, depth: int) -> Iterator[str]:
        if mine.name != theirs.name:
            yield f"{path}: {mine.name}, not {theirs.name}"
        yield from self.differing(mine.target, theirs.type, path, depth)

    def _pointer(self, mine: Any, theirs: Any, path: str, depth: int) -> Iterator[str]:
        if depth < DEPTH:
            yield from self.differing(mine.target, theirs.type, f"*({path})", depth + 1)

    def _array(self, mine: Any, theirs: Any, path: str, depth: int) -> Iterator[str]:
        if (mine.length or None) != (theirs.length or None):
            yield f"{path}: [{mine.length}], not [{theirs.length}]"
        yield from self.differing(mine.target, theirs.type, f"{path}[]", depth)

    def _enumeration(self, mine: Any, theirs: Any, path: str, depth: int) -> Iterator[str]:
        pairs = [(each.name, each.value) for each in theirs.enumerators]
        if list(mine.enumerators) != pairs:
            yield f"{path}: {mine.enumerators}, not {pairs}"

    def _incomplete(self, mine: Any, theirs: Any, path: str, depth: int) -> Iterator[str]:
        # drgn completes a declaration by another unit's definition, as our catalog does by BTF.
        if (mine.name or None) != theirs.tag:
            yield f"{path}: {mine.name}, not {theirs.tag}"

    def _function(self, mine: FunctionType, theirs: Any, path: str, depth: int) -> Iterator[str]:
        if mine.is_variadic != theirs.is_variadic or len(mine.parameters) != len(theirs.parameters):
            yield f"{path}: {len(mine.parameters)} parameters, {mine.is_variadic}, not {theirs}"
            return
        if depth >= DEPTH:
            return
        yield from self.differing(mine.result, theirs.type, f"{path}()", depth + 1)
        for (name, type_), other in zip(mine.parameters, theirs.parameters, strict=True):
            if (name or None) != other.name:
                yield f"{path}: parameter {name}, not {other.name}"
            yield from self.differing(type_, other.type, f"{path}({name})", depth + 1)

    def _compound(self, mine: CompoundType, theirs: Any, path: str, depth: int) -> Iterator[str]:
        if not theirs.is_complete() or (mine.name or None) != theirs.tag or mine.size != theirs.size:
            yield f"{path}: {mine.description} of {mine.size} bytes, not {theirs.type_name()}"
            return
        key = (path.rpartition(".")[2], mine.name)
        if depth >= DEPTH or (mine.name and key in self._seen):
            return
        self._seen.add(key)
        shape = [(each.name or None, each.bit_offset, each.bit_size) for each in mine.members]
        others = [(each.name, each.bit_offset, each.bit_field_size or 0) for each in theirs.members]
        self.counts["members"] += len(shape)
        if shape != others:
            yield f"{path}: {set(shape) ^ set(others)}"
            return
        for member, other in zip(mine.members, theirs.members, strict=True):
            yield from self.differing(member.type, other.type, f"{path}.{member.name}", depth + 1)
