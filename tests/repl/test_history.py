"""Where typed lines are kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orcdbg.repl.history import history_file, make_folder


@pytest.mark.parametrize("environment", [{}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "somewhere/relative"}])
def test_the_history_is_in_the_home_folder_by_default(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative XDG_STATE_HOME would mean the current folder, and is ignored."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file(environment) == tmp_path / ".local" / "state" / "orcdbg" / "history"


def test_the_history_is_in_the_state_folder(tmp_path: Path) -> None:
    """XDG_STATE_HOME decides."""
    assert history_file({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "orcdbg" / "history"


def test_the_folder_is_its_owners_only(tmp_path: Path) -> None:
    """What was typed says what was looked for."""
    file = tmp_path / "state" / "orcdbg" / "history"
    assert make_folder(file) is None
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_a_line_and_no_end(tmp_path: Path) -> None:
    """The session goes on without a history."""
    (tmp_path / "file").write_text("")
    problem = make_folder(tmp_path / "file" / "orcdbg" / "history")
    assert problem is not None
    assert problem.endswith("this session's lines will not be kept")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda file: file.symlink_to(file.parent / "other"), "symbolic link"),
        (lambda file: file.symlink_to("/dev/null"), "symbolic link"),
        (os.mkfifo, "no regular file"),
        (os.mkdir, "no regular file"),
    ],
)
def test_what_is_no_file_of_ones_own_is_left_alone(tmp_path: Path, make: Callable[[Path], None], what: str) -> None:
    """The session's end would write through a link, and wait at a pipe."""
    file = tmp_path / "history"
    (tmp_path / "other").write_text("precious")
    make(file)
    problem = make_folder(file)
    assert problem is not None
    assert what in problem
    assert (tmp_path / "other").read_text() == "precious"


def test_a_history_of_before_is_taken(tmp_path: Path) -> None:
    """A plain file of this user's."""
    (tmp_path / "history").write_text("")
    assert make_folder(tmp_path / "history") is None
