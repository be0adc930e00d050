"""Variables of real kernels that BTF does not describe: their types are those that drgn gives from the same DWARF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from orcdbg.target.session import Session
from orcdbg.typed.catalog import basic_type
from orcdbg.typed.known_variables import KNOWN_VARIABLES
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
from tests.lab.conftest import KERNELS, OpenScene

pytestmark = pytest.mark.lab

VARIABLES = 1500
FUNCTIONS = 200
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


def opened(drgn: Any, scene: Any) -> Any:
    """drgn over the same files."""
    program = drgn.Program()
    program.set_core_dump(str(scene.snapshot))
    program.load_debug_info([str(scene.vmlinux)])
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


def lone_names(session: Session) -> list[str]:
    """Names that one symbol alone has: of several, drgn may take another."""
    symbols = session.symbols
    counts = Counter(symbols.name_of(index) for index in range(len(symbols.entries)))
    return sorted(name for name, count in counts.items() if count == 1)


def variables_of(session: Session, program: Any, random: Random) -> Iterator[tuple[str, int, Any]]:
    """Names and link addresses of data that one symbol alone names, with drgn's object, in random order."""
    symbols = session.symbols
    names = lone_names(session)
    for name in random.sample(names, len(names)):
        symbol = symbols.find(name)
        if symbol is None or symbol.letter in "tTwWU":
            continue
        try:
            theirs = program.variable(name)
        except LookupError:
            continue
        if theirs.address_ is None or theirs.address_ != session.linux.run_time(symbol):
            continue  # of static variables of one name drgn has chosen another
        yield name, symbol.address, theirs


@pytest.mark.parametrize("kernel", KERNELS)
def test_variables_have_the_types_that_drgn_gives_them(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """Variables chosen at random, per-CPU ones among them, with the types that they lead to."""
    drgn = pytest.importorskip("drgn")
    scene, session = open_scene(kernel, "idle")
    program = opened(drgn, scene)
    types = session.built_kernel.debug_types
    assert types is not None
    comparison = Comparison()
    wrong: list[str] = []
    for name, address, theirs in variables_of(session, program, Random(seed)):
        ours = types.variable_at(name, address)
        if ours is None:
            comparison.counts["not found"] += 1
            print(f"{kernel}: {name} at {address:#x} is not found; drgn has {theirs.type_}")
            continue
        comparison.counts["variables"] += 1
        wrong += comparison.differing(ours, theirs.type_, name)
        if comparison.counts["variables"] == VARIABLES:
            break
    print(f"{kernel}: {dict(comparison.counts)}")
    assert wrong == []
    assert comparison.counts["variables"] == VARIABLES
    assert comparison.counts["not found"] <= VARIABLES // 100


@pytest.mark.parametrize("kernel", KERNELS)
def test_functions_have_the_types_that_drgn_gives_them(kernel: str, seed: int, open_scene: OpenScene) -> None:
    """Functions chosen at random by their addresses."""
    drgn = pytest.importorskip("drgn")
    scene, session = open_scene(kernel, "idle")
    program = opened(drgn, scene)
    types = session.built_kernel.debug_types
    assert types is not None
    comparison = Comparison()
    wrong: list[str] = []
    symbols = session.symbols
    names = lone_names(session)
    for name in Random(seed).sample(names, len(names)):
        symbol = symbols.find(name)
        if symbol is None or symbol.letter not in "tT":
            continue
        try:
            theirs = program.function(name)
        except LookupError:
            continue
        if theirs.address_ != session.linux.run_time(symbol):
            continue
        ours = types.function_at(symbol.address)
        assert ours is not None, name
        wrong += comparison.differing(ours, theirs.type_, name)
        comparison.counts["functions"] += 1
        if comparison.counts["functions"] == FUNCTIONS:
            break
    print(f"{kernel}: {dict(comparison.counts)}")
    assert wrong == []
    assert comparison.counts["functions"] == FUNCTIONS


@pytest.mark.parametrize("kernel", KERNELS)
def test_known_variables_are_of_the_types_that_the_build_gave_them(kernel: str, open_scene: OpenScene) -> None:
    """Each that the kernel has, by name and size of its type."""
    _, session = open_scene(kernel, "idle")
    types = session.built_kernel.debug_types
    assert types is not None
    compared = 0
    for name, expected in KNOWN_VARIABLES.items():
        symbol = session.symbols.find(name)
        if symbol is None:
            continue
        built = types.variable_at(name, symbol.address)
        if built is None:
            continue  # the linker's name for another variable, as jiffies
        known = session.program.known_type(name)
        assert known is not None, f"{kernel} has no {expected}"
        assert known.size == built.size, name
        compared += 1
    print(f"{kernel}: {compared} of {len(KNOWN_VARIABLES)}")
    assert compared > len(KNOWN_VARIABLES) // 2
