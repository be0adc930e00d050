"""Variables of real kernels that BTF does not describe: their types are those that drgn gives from the same DWARF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from orcdbg.target.session import Session
from orcdbg.typed.catalog import basic_type
from orcdbg.typed.declarations import type_name
from orcdbg.typed.known_variables import KNOWN_VARIABLES
from orcdbg.typed.types import ArrayType, IntType, Type, array_of
from tests.lab.conftest import OpenScene
from tests.lab.draw import kernels_of
from tests.lab.drgn_types import Comparison, opened

pytestmark = pytest.mark.lab

VARIABLES = 1500
FUNCTIONS = 200


def basic(type_: Type) -> Type:
    """A type with C's own integers in one spelling, as `unsigned long` for `long unsigned int`."""
    if isinstance(type_, ArrayType):
        return array_of(basic(type_.target), type_.length)
    return basic_type(type_.name) or type_ if isinstance(type_, IntType) else type_


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


@pytest.mark.parametrize("kernel", kernels_of("DWARF types"))
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


@pytest.mark.parametrize("kernel", kernels_of("DWARF types"))
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
        except drgn.BadDataError as error:
            # The assembler's functions return DW_TAG_unspecified_type, which drgn does not know.
            assert "unknown DWARF type tag 0x3b" in str(error), name
            comparison.counts["functions that drgn cannot read"] += 1
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


@pytest.mark.parametrize("kernel", kernels_of("DWARF types"))
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
        assert type_name(basic(known)) == type_name(basic(built)), name
        compared += 1
    print(f"{kernel}: {compared} of {len(KNOWN_VARIABLES)}")
    assert compared > len(KNOWN_VARIABLES) // 2
