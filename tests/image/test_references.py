"""Whose address does a build take, and where do its jumps go? Over an image made by code."""

from __future__ import annotations

import struct

import pytest

from orcdbg.base.reading import BytesSource
from orcdbg.image.references import References
from orcdbg.image.vmlinux import Image
from tests.build.code import branch
from tests.build.elf import Part, image

TEXT, RODATA, DATA, SEALS = (0xFFFFFFFF81000000 + 0x100000 * i for i in range(4))
SIZE, CODE = 0x40, 0x4 | 0x2
F = TEXT + 2 * SIZE  # the function in question
ENDBR = b"\xf3\x0f\x1e\xfa"


def references(
    text: dict[int, bytes] | None = None, rodata: bytes = bytes(64), more: tuple[Part, ...] = (), **tables: int
) -> References:
    """Those of functions of 64 bytes, with these contents at these offsets, and of read-only data."""
    code = bytearray(b"\x90" * 16 * SIZE)
    for offset, piece in (text or {}).items():
        code[offset : offset + len(piece)] = piece
    parts = (
        Part(".text", TEXT, bytes(code), flags=CODE),
        Part(".rodata", RODATA, rodata),
        Part(".data", DATA, bytes(64)),
    )
    described = [(RODATA + tables["start"], RODATA + tables["end"])] if tables else []
    return References(Image(BytesSource("made", image((*parts, *more)))), described)


POINTERS = {
    "a word of data": ({}, bytes(8) + F.to_bytes(8, "little")),
    "a word at an odd place": ({}, bytes(3) + F.to_bytes(8, "little") + bytes(5)),
    "a distance in data": ({}, bytes(4) + struct.pack("<i", F - RODATA - 4)),
    "lea": ({5: b"\x48" + branch(b"\x8d\x3d", TEXT + 6, F)}, bytes(64)),
    "mov of a number": ({5: b"\xbf" + (F & 0xFFFFFFFF).to_bytes(4, "little")}, bytes(64)),
}


@pytest.mark.parametrize("name", POINTERS)
def test_a_function_is_pointed_to_by_whatever_holds_its_address(name: str) -> None:
    """And its neighbour, of which nothing is said, is not."""
    text, rodata = POINTERS[name]
    made = references(text, rodata)
    assert (made.is_pointed_to(F), made.is_pointed_to(F + SIZE)) == (True, False)


def test_calls_and_jumps_are_no_pointers() -> None:
    """They say where control goes; no register ever holds it."""
    made = references(
        {0: branch(b"\xe8", TEXT, F), 8: branch(b"\xe9", TEXT + 8, F), 16: branch(b"\x0f\x84", TEXT + 16, F)}
    )
    assert not made.is_pointed_to(F)
    assert made.jumps_into(F, F + SIZE) == [TEXT + 8, TEXT + 16]
    assert made.jumps_into(F, F + SIZE, with_conditional=False) == [TEXT + 8]


def test_tables_that_only_describe_are_no_pointers() -> None:
    """Where tracers may put their calls is a list of nearly all functions."""
    word = bytes(8) + F.to_bytes(8, "little")
    assert references(rodata=word).is_pointed_to(F)
    assert not references(None, word, start=8, end=16).is_pointed_to(F)


def test_an_endbr_that_the_build_left_is_a_pointer_and_one_it_took_away_is_none() -> None:
    """A function without one is asked about like any other: some are called before branches are tracked."""
    seals = Part(".ibt_endbr_seal", SEALS, struct.pack("<i", F - SEALS))
    text = {2 * SIZE: ENDBR, 3 * SIZE: ENDBR, 5: b"\xbf" + (F + 2 * SIZE & 0xFFFFFFFF).to_bytes(4, "little")}
    made = references(text, more=(seals,))
    assert [made.is_pointed_to(F + SIZE * number) for number in range(4)] == [False, True, True, False]


def test_a_jump_in_a_replacement_counts_only_where_it_enters() -> None:
    """Into the middle of a function only that function jumps, from its alternatives too."""
    at = SEALS + 0x1000
    code = branch(b"\xe9", at, F) + branch(b"\xe9", at + 5, F + 4)
    made = references(more=(Part(".altinstr_replacement", at, code.ljust(32, b"\x90"), flags=CODE),))
    assert made.jumps_into(F, F + SIZE) == [at]
    assert not made.is_in_function(at)


def test_without_the_contents_of_sections_everything_may_be_pointed_to() -> None:
    """A file of debugging information alone has only their headers."""
    parts = (
        Part(".text", TEXT, bytes(SIZE), 8, CODE),
        Part(".rodata", RODATA, bytes(8), 8),
        Part(".data", DATA, bytes(8), 8),
    )
    assert References(Image(BytesSource("made", image(parts)))).is_pointed_to(TEXT)
