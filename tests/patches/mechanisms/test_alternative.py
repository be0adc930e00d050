"""Alternatives of kernels whose entries tell how many bytes of a site are padding."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest

from orcdbg.patches.alternative_table import AlternativeTable, entry_size
from orcdbg.patches.mechanisms.alternative import AlternativesPass
from orcdbg.patches.state import nops
from tests.patches.world import TEXT, MiniFeatures, MiniLinux, image_of, text_of

TABLE, REPLACEMENT = TEXT + 0x100, TEXT + 0x80
FEATURE = 7
NOP3, NOP5 = nops.P6.by_length[2], nops.P6.by_length[4]


def entry(size: int, replaced: int, padding: int, table: int = TABLE) -> bytes:
    """An entry of 13 bytes for the site at the text's begin."""
    return struct.pack("<iiHBBB", TEXT - table, REPLACEMENT - table - 4, FEATURE, size, replaced, padding)


def site_after(built: bytes, replacement: bytes, padding: int, bits: set[int]) -> bytes:
    """What the boot makes of a site."""
    text = text_of({0: built, 0x80: replacement})
    table = AlternativeTable(entry(len(built), len(replacement), padding), TABLE, 13)
    features = cast("Any", MiniFeatures(bits))
    the_pass = AlternativesPass(cast("Any", MiniLinux({}, {})), image_of(text), table, features, nops.P6)
    the_pass.apply(0, text)
    return bytes(text.data[: len(built)])


def test_entries_that_tell_the_padding_are_13_bytes_long() -> None:
    """As the table itself says."""
    assert entry_size(b"".join(entry(5, 3, 2, TABLE + 13 * number) for number in range(8))) == 13


@pytest.mark.parametrize(
    ("built", "padding", "left"),
    [
        (b"\x90" * 5, 5, NOP5),
        (b"\x50\x90\x90\x90", 3, b"\x50\x90\x90\x90"),
        (b"\x90\x50\x90", 1, b"\x90\x50\x90"),
        (b"\x90\x90\x90", 0, b"\x90\x90\x90"),
        (b"\x0f\x1f\x00\x90\x90", 2, b"\x0f\x1f\x00\x90\x90"),
    ],
)
def test_a_site_that_is_not_replaced_gets_long_nops_where_it_is_padding_alone(
    built: bytes, padding: int, left: bytes
) -> None:
    """Behind an instruction the padding stays as built: the kernel looks at the site's begin for it."""
    assert site_after(built, b"\x58", padding, set()) == left


@pytest.mark.parametrize(
    ("replacement", "written"),
    [
        (b"\x58\x90\x90\x90\x90", b"\x58\x90\x90\x90\x90"),
        (b"\x90\x58", b"\x90\x58" + NOP3),
        (b"", NOP5),
    ],
)
def test_a_replacement_keeps_its_own_nops_and_is_filled_up_with_long_ones(replacement: bytes, written: bytes) -> None:
    """Only what is behind it is filled."""
    assert site_after(b"\x50\x50\x90\x90\x90", replacement, 3, {FEATURE}) == written
