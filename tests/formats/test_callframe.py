"""Call frame information: rows of entries made by code, and any bytes at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.formats.callframe import CallFrames

FUNCTION, SIZE = 0xFFFF_FFFF_8100_0000, 0x100
# Version 1, no augmentation, code by 1, data by -8, column 16; CFA rsp+8, return address at CFA-8.
COMMON = b"\x01\0\x01\x78\x10" + b"\x0c\x07\x08" + b"\x90\x01"


def entry(identity: int, body: bytes) -> bytes:
    """One entry, padded with nops."""
    body += bytes(-len(body) % 8)
    return struct.pack("<II", len(body) + 4, identity) + body


def frames(instructions: bytes, common: bytes = COMMON) -> CallFrames:
    """A table of one function."""
    function = entry(0, struct.pack("<QQ", FUNCTION, SIZE) + instructions)
    return CallFrames(entry(0xFFFF_FFFF, common) + function, "table")


def row(table: CallFrames, offset: int) -> Row:
    """The row at an offset in the function."""
    found = table.row(FUNCTION + offset)
    assert found is not None
    found.saved.pop("rip", None)
    return found


def test_a_push_moves_the_cfa_and_saves_the_register() -> None:
    """`push %rbp; mov %rsp,%rbp; ...; leave` as gcc describes it."""
    table = frames(b"\x41\x0e\x10\x86\x02" + b"\x43\x0d\x06" + b"\x02\x20\xc6\x0c\x07\x08")
    assert row(table, 0) == Row(Place("rsp", 8, False))
    assert row(table, 1) == Row(Place("rsp", 16, False), {"rbp": Place("cfa", -16)})
    assert row(table, 4) == Row(Place("rbp", 16, False), {"rbp": Place("cfa", -16)})
    assert row(table, 0x24) == Row(Place("rsp", 8, False))


def test_a_remembered_state_comes_back() -> None:
    """As behind an early return."""
    table = frames(b"\x41\x0e\x10\x83\x02\x41\x0a\xc3\x0e\x08\x41\x0b")
    assert row(table, 2).saved == {}
    assert row(table, 3) == Row(Place("rsp", 16, False), {"rbx": Place("cfa", -16)})


def test_a_realigned_stack_is_an_expression() -> None:
    """`CFA = *(rbp - 8)`, r12 at rbp - 16."""
    table = frames(b"\x41\x0f\x03\x76\x78\x06\x10\x0c\x02\x76\x70\x10\x0d\x02\x30\x1f")
    found = row(table, 1)
    assert found.cfa == Place("rbp", -8, True)
    assert found.saved == {"r12": Place("rbp", -16), "r13": None}


def test_an_address_outside_every_function_has_no_row() -> None:
    """Before the first and behind the last."""
    table = frames(b"")
    assert table.row(FUNCTION - 1) is None
    assert table.row(FUNCTION + SIZE) is None
    assert table.row(FUNCTION + SIZE - 1) is not None


@pytest.mark.parametrize("instructions", [b"\x41\x0b", b"\x1c", b"\x03", b"\x0a" * 99, b"\x0f\x7f"])
def test_damaged_instructions_are_named(instructions: bytes) -> None:
    """A state that was not remembered, an unknown instruction, operands cut off, no end of remembering."""
    with pytest.raises(UnsupportedFormat):
        frames(instructions.ljust(128, b"\x0a" if instructions[0] == 10 else b"\x1c")).row(FUNCTION)


@given(st.binary(max_size=80), st.integers(0, 31))
def test_any_bytes_give_a_row_or_an_error_of_ours(noise: bytes, common: int) -> None:
    """Nothing else comes out, whatever the table holds."""
    start = bytearray(COMMON)
    start[common % len(start)] ^= noise[0] if noise else 1
    for table in (frames(noise), frames(noise, bytes(start)), CallFrames(noise, "noise")):
        try:
            table.row(FUNCTION + 1)
        except OrcdbgError:
            continue
