"""The kernel's own symbol tables are found without a name for them, and damaged ones are not believed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.formats.kallsyms import Kallsyms, find_kallsyms
from tests.build.kallsyms import Named, tables

TEXT, RODATA = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8200_0000
BANNER = b"Linux version 6.6.6 (test)\n\0"
LAYOUTS = [("per-cpu", True), ("per-cpu", False), ("base", False), ("self", False)]


def made(
    encoding: str, addresses_first: bool, seed: int, count: int = 1500, wide_markers: bool = False
) -> tuple[bytes, list[Named]]:
    """Read-only data with a banner, other data, and the tables; and the symbols in them."""
    chance = random.Random(seed)
    symbols = [Named(TEXT, "T", "_text")]
    for number in range(count):
        length = chance.choice((1, 3, 8, 200)) if number % 50 == 0 else 6
        name = "".join(chance.choice(("read", "init_", "x", "_", "9", "sys_", "Q")) for _ in range(length))
        symbols.append(Named(symbols[-1].address + chance.choice((0, 16, 16, 64, 4096)), "t", f"{name}{number}"))
    head = BANNER.ljust(64, b"\0") + chance.randbytes(1000) + b"0\x001\x002\0" + bytes(993)
    head += bytes(-len(head) % 8)
    symbols.append(Named(RODATA, "D", "linux_banner"))
    if encoding == "per-cpu":
        symbols = [Named(0, "A", "__per_cpu_start"), Named(0x1000, "A", "current_task"), *symbols]
    found = tables(symbols, encoding, RODATA + len(head), addresses_first, wide_markers)
    return head + found + chance.randbytes(999), symbols


def listed(found: Kallsyms) -> list[Named]:
    """What was found, as symbols."""
    names = [found.strings[at : found.strings.index(b"\0", at)].decode() for at in found.name_at.tolist()]
    letters = [chr(letter) for letter in found.letters.tolist()]
    return [Named(*each) for each in zip(found.addresses.tolist(), letters, names, strict=True)]


@pytest.mark.parametrize(("encoding", "addresses_first"), LAYOUTS)
@pytest.mark.parametrize("count", [510, 1022, 1500])
def test_what_was_written_is_found(encoding: str, addresses_first: bool, count: int) -> None:
    """All symbols of each layout, aliases and names of more than 127 tokens included, in their order."""
    for seed in range(4):
        data, symbols = made(encoding, addresses_first, seed, count)
        found = find_kallsyms(data, RODATA, "test")
        assert found.encoding == encoding
        assert listed(found) == symbols


def test_markers_of_eight_bytes_are_found_as_those_of_four() -> None:
    """Kernels to 4.19 keep them so."""
    for seed in range(4):
        data, symbols = made("per-cpu", True, seed, wide_markers=True)
        assert listed(find_kallsyms(data, RODATA, "test")) == symbols


def test_addresses_that_contradict_the_banner_are_refused() -> None:
    """A table that is whole in itself, but of which the banner's address is wrong, is another kernel's or a trap."""
    data, _ = made("base", False, 1)
    with pytest.raises(UnsupportedFormat, match="none of the kernel's own"):
        find_kallsyms(data.replace(BANNER, b"Linux poetry!".ljust(len(BANNER), b"\0")), RODATA, "test")


@pytest.mark.parametrize("start", [0, 0x1000, (1 << 63) - 8, (1 << 64) - 8])
def test_tables_at_an_address_that_no_kernel_has_are_searched_all_the_same(start: int) -> None:
    """As the header of a damaged section says it."""
    data, symbols = made("self", False, 1)
    try:
        found = find_kallsyms(data, start, "made")
    except UnsupportedFormat as error:
        assert "kallsyms" in error.message
    else:
        assert len(listed(found)) == len(symbols)


def test_no_tables_are_named() -> None:
    """Data without any say so."""
    with pytest.raises(UnsupportedFormat, match="kallsyms"):
        find_kallsyms(random.Random(1).randbytes(1 << 16), RODATA, "test")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LAYOUTS), st.integers(0, 3), st.randoms(use_true_random=False), st.integers(1, 8))
def test_damage_gives_symbols_or_an_error(
    layout: tuple[str, bool], seed: int, chance: random.Random, hits: int
) -> None:
    """Any bytes: a table that is consistent in itself, or an OrcdbgError."""
    data = bytearray(made(*layout, seed, 600)[0])
    for _ in range(hits):
        at = chance.randrange(len(data))
        data[at : at + 4] = chance.randbytes(chance.choice((1, 4)))
    try:
        found = find_kallsyms(bytes(data), RODATA, "test")
    except OrcdbgError:
        return
    assert len(listed(found)) == len(found.addresses)
