"""The note that lists kept bytes."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.formats.elf import Note
from orcdbg.formats.trim_note import NOTE_OWNER, NOTE_TYPE, encode_trim_note, parse_trim_note


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zlib",
        zlib.compress(b"x" * 15),
        zlib.compress(np.array([5, 4], dtype="<u8").tobytes()),
        zlib.compress(np.array([0, 8, 8, 16], dtype="<u8").tobytes()),
        zlib.compress(bytes(1 << 28), 9),
    ],
    ids=["empty", "noise", "half a row", "backwards", "touching", "bomb"],
)
def test_a_damaged_list_is_an_error(data: bytes) -> None:
    """Nothing is believed of a list that cannot have been written."""
    with pytest.raises(UnsupportedFormat):
        parse_trim_note(Note(NOTE_OWNER, NOTE_TYPE, data), "core")


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_note_gives_ranges_or_an_error(noise: bytes, at: int) -> None:
    """Whatever stands in the note."""
    good = bytearray(encode_trim_note([(0, 8), (4096, 8192), (1 << 40, (1 << 40) + 3)]).data)
    good[at : at + len(noise)] = noise
    try:
        rows = parse_trim_note(Note(NOTE_OWNER, NOTE_TYPE, bytes(good)), "core")
    except OrcdbgError:
        return
    assert (rows[:, 1] > rows[:, 0]).all()
