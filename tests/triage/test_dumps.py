"""Which dumps are meant: what is named, and in folders what begins as a snapshot."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.cli.main import sample_files
from orcdbg.triage.dumps import find_dumps

CORE = sample_files()[1]


def test_in_a_folder_dumps_are_told_by_their_content(tmp_path: Path) -> None:
    """Whole, cut, packed; an empty file was to be something, and is told of. Links are not followed: nothing is found twice."""
    (tmp_path / "b").mkdir()
    shutil.copy(CORE, tmp_path / "b" / "core")
    (tmp_path / "cut").write_bytes(Path(CORE).read_bytes()[:5000])
    (tmp_path / "packed.gz").write_bytes(gzip.compress(Path(CORE).read_bytes()[:100_000]))
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "other").symlink_to(CORE)
    os.mkfifo(tmp_path / "pipe")
    found = find_dumps([str(tmp_path)])
    assert found.paths == [str(tmp_path / name) for name in ("cut", "empty", "packed.gz", "b/core")]
    assert (found.passed_over, found.problems) == (1, [])


def test_what_is_named_is_meant_whatever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record says what is wrong with it. Each is there once, by its whole name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello\n")
    wanted = [str(tmp_path / "text"), str(tmp_path / "nothing"), f"{tmp_path}/a\0b"]
    assert find_dumps(["text", "./text", "nothing", "a\0b", str(tmp_path / "text")]).paths == wanted


def test_no_dump_at_all_is_an_error(tmp_path: Path) -> None:
    """It names what was looked into."""
    with pytest.raises(NotFound, match=str(tmp_path)):
        find_dumps([str(tmp_path)])


def test_standard_input_is_refused() -> None:
    """A worker reads a file of its own accord."""
    with pytest.raises(UsageError, match="only once"):
        find_dumps(["-"])
