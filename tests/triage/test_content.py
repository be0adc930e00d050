"""Content: a sample tells most files apart, a comparison all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.triage.content import file_state, is_same, is_unchanged

LARGE = 16 << 20


def written(path: Path, size: int, changed: int | None = None) -> str:
    """A file of zeros, in which one byte may be another."""
    with path.open("wb") as file:
        file.truncate(size)
        if changed is not None:
            file.seek(changed)
            file.write(b"x")
    return str(path)


def test_a_small_file_is_hashed_as_a_whole(tmp_path: Path) -> None:
    """Any byte of it changes the sample."""
    samples = {file_state(written(tmp_path / str(place), 4096, place)).sample for place in (None, 0, 2048, 4095)}
    assert len(samples) == 4


def test_of_a_large_file_begin_end_and_blocks_between_are_hashed(tmp_path: Path) -> None:
    """The size too: zeros more are another file."""
    plain = file_state(written(tmp_path / "plain", LARGE)).sample
    for changed in (0, (1 << 20) - 1, 1 << 20, LARGE - 1):
        assert file_state(written(tmp_path / "other", LARGE, changed)).sample != plain
    assert file_state(written(tmp_path / "longer", LARGE + 1)).sample != plain


def test_files_with_equal_samples_are_compared_byte_by_byte(tmp_path: Path) -> None:
    """A byte between the blocks is not in the sample, and is found."""
    between = (1 << 20) + (1 << 16) + 5
    plain, same = written(tmp_path / "plain", LARGE), written(tmp_path / "same", LARGE)
    other = written(tmp_path / "other", LARGE, between)
    assert file_state(plain).sample == file_state(other).sample
    assert is_same(plain, same) and not is_same(plain, other)
    assert not is_same(plain, written(tmp_path / "short", LARGE - 1))


def test_two_names_of_a_file_are_the_same(tmp_path: Path) -> None:
    """Nothing is read for that."""
    plain = written(tmp_path / "plain", 4096)
    (tmp_path / "link").symlink_to(plain)
    assert is_same(plain, str(tmp_path / "link"))


def test_a_file_that_was_written_again_is_told(tmp_path: Path) -> None:
    """By its size, or by the time of its last change; one that has gone is changed too."""
    path = tmp_path / "dump"
    state = file_state(written(path, 4096))
    assert is_unchanged(str(path), state)
    os.utime(path, ns=(0, state.modified + 1))
    assert not is_unchanged(str(path), state)
    path.unlink()
    assert not is_unchanged(str(path), state)


def test_what_is_no_regular_file_has_no_state(tmp_path: Path) -> None:
    """A pipe, which nobody waits for, and a name that is not there."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing"):
        with pytest.raises(UnsupportedFormat):
            file_state(str(tmp_path / name))
