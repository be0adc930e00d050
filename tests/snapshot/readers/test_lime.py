"""LiME and AVML files are read where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.sizes import PAGE
from orcdbg.snapshot.opening import open_paths
from tests.build.memory_files import avml, lime
from tests.snapshot.two_ranges import HIGH, RANGES, check_ranges, write


def test_lime_and_avml_are_told_by_content(tmp_path: Path) -> None:
    """Zeros behind the last range, as on a disk, are none."""
    for name, data in (("lime", lime(RANGES)), ("avml", avml(RANGES)), ("disk", lime(RANGES) + bytes(PAGE))):
        check_ranges(open_paths(write(tmp_path / name, data)))


def test_a_file_that_is_cut_off_says_how_much_it_lacks(tmp_path: Path) -> None:
    """In a warning and in `left_out`; what is before the cut is read, and what is behind it has its word."""
    for name, whole, held in (
        ("lime", lime(RANGES)[:-100], len(HIGH) - 100),
        # The last chunk's data end with the file but for the 8 bytes of the stream's length; a chunk is whole or useless.
        ("avml", avml({0x1_0000_0000: HIGH * 4})[:-9], 1 << 16),
    ):
        snapshot = open_paths(write(tmp_path / name, whole))
        size = len(HIGH) if name == "lime" else len(HIGH) * 4
        assert snapshot.left_out is not None
        assert snapshot.left_out() == {"zero-filled": 0, "cut off": size - held}
        assert [f"{size - held} bytes of memory" in warning for warning in snapshot.warnings] == [True]
        assert snapshot.physical.read(0x1_0000_0000, held) == (HIGH * 4)[:held]
        with pytest.raises(NotInSnapshot, match="cut off"):
            snapshot.physical.read(0x1_0000_0000 + held, 1)


def test_a_whole_file_lacks_nothing(tmp_path: Path) -> None:
    """No warning, and no byte that is named and not held."""
    for name, data in (("lime", lime(RANGES)), ("avml", avml(RANGES))):
        snapshot = open_paths(write(tmp_path / name, data))
        assert snapshot.left_out is not None
        assert snapshot.left_out() == {"zero-filled": 0, "cut off": 0}
        assert list(snapshot.warnings) == []
