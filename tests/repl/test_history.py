"""Where typed lines are kept."""

from __future__ import annotations

import stat
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
