"""Symbols by name and by address."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.formats.elf import Section
from orcdbg.symbols.table import ENTRY, SymbolTable
from orcdbg.target.session import Session

TEXT = Section(".text", 1, 6, 0xFFFF0000, 0, 0x10000, 0, 0, 0)


def make_table(symbols: list[tuple[str, int]], info: int = 0x12, sizes: dict[str, int] | None = None) -> SymbolTable:
    """A table of function symbols, without sizes of their own where none are given."""
    entries, strings = np.zeros(len(symbols) + 1, dtype=ENTRY), b"\0"
    for i, (name, address) in enumerate(symbols, 1):
        entries[i] = (len(strings), info, 0, 1, address, (sizes or {}).get(name, 0))
        strings += name.encode() + b"\0"
    return SymbolTable("test", entries.tobytes(), strings, [TEXT, TEXT], 1)


NAMES = st.text(alphabet="abc_", min_size=1, max_size=12)


@given(st.dictionaries(NAMES, st.integers(1, 500), max_size=30), st.integers(0, 600))
def test_look_up_by_address_is_a_linear_scan(symbols: dict[str, int], address: int) -> None:
    """The symbol found starts at the highest address that is not above the one asked for."""
    found = make_table(list(symbols.items())).at(address)
    below = [start for start in symbols.values() if start <= address]
    assert (found.symbol.address if found else None) == (max(below) if below else None)
    above = [start for start in symbols.values() if start > address]
    if found and above:
        assert found.size == min(above) - found.symbol.address


@pytest.mark.parametrize(
    ("address", "is_held"), [(15, False), (16, True), (23, True), (24, False), (40, True), (41, False), (-1, False)]
)
def test_a_symbol_holds_what_its_size_reaches_to(address: int, is_held: bool) -> None:
    """Of several at one address the largest counts; a label holds its own address alone."""
    table = make_table([("a", 16), ("a_alias", 16), ("label", 40)], sizes={"a": 4, "a_alias": 8})
    assert table.holds(address) is is_held


@given(st.dictionaries(NAMES, st.integers(1, 500), max_size=30), NAMES)
def test_look_up_by_name_finds_that_name_only(symbols: dict[str, int], name: str) -> None:
    """Neither a longer name with the same beginning nor a shorter one is found."""
    found = make_table(list(symbols.items())).find(name)
    assert (found.address if found else None) == symbols.get(name)


@pytest.mark.parametrize(
    ("aliases", "chosen"),
    [
        (["__pi_memcpy", "memcpy"], "memcpy"),
        (["__memcpy", "memcpy"], "memcpy"),
        (["do_one", "do_two"], "do_one"),
    ],
)
def test_of_names_at_one_address_the_kernels_choice_wins(aliases: list[str], chosen: str) -> None:
    """The order is that of scripts/kallsyms.c, so that names agree with the kernel's own messages."""
    found = make_table([(name, 16) for name in aliases]).at(20)
    assert found is not None
    assert found.symbol.name == chosen


def test_names_that_leave_the_string_table_are_refused() -> None:
    """A hostile symbol table cannot make the reader leave its strings."""
    entries = np.zeros(1, dtype=ENTRY)
    entries["name"] = 100
    with pytest.raises(UnsupportedFormat):
        SymbolTable("test", entries.tobytes(), b"\0", [TEXT], 1)


def test_the_samples_symbols_are_found_both_ways(sample: Session) -> None:
    """Every 97th function's name leads to its address and back to a symbol at that address."""
    names = sample.symbols.names()[::97]
    assert len(names) > 100
    for name in names:
        symbol = sample.symbols.get(name)
        found = sample.symbols.at(symbol.address) if symbol.address >> 63 else None
        assert found is None or found.symbol.address == symbol.address
