"""The prompt and the toolbar."""

from __future__ import annotations

import pytest

from orcdbg.commands.debugger import Debugger
from orcdbg.repl.toolbar import Status, prompt_text, read_status, toolbar_text

STATUS = Status("6.12.107+deb13-cloud-amd64", 94, "init", 3, 6, 2)


def test_the_prompt_names_the_frame_when_it_is_not_the_innermost() -> None:
    """Frame 0 is where everybody begins, and needs no mention."""
    assert prompt_text(0) == "orcdbg> "
    assert prompt_text(6) == "(frame 6) orcdbg> "


def test_the_toolbar_says_what_is_selected() -> None:
    """Kernel, task, CPU, frame and warnings, as wide as the terminal."""
    text = toolbar_text(STATUS, 80)
    assert text.rstrip() == " 6.12.107+deb13-cloud-amd64 | task 94 init | cpu 3 | frame 6 | 2 warnings"
    assert len(text) == 80


def test_what_is_not_known_is_left_out() -> None:
    """A snapshot without tasks has a toolbar all the same."""
    assert toolbar_text(Status(None, None, None, None, 0, 1), 40).strip() == "no task | frame 0 | 1 warning"


@pytest.mark.parametrize("width", range(90))
def test_the_toolbar_never_exceeds_the_terminal(width: int) -> None:
    """A narrow one loses the release first, then the end."""
    assert len(toolbar_text(STATUS, width)) == width


def test_on_a_narrow_terminal_the_task_stays() -> None:
    """It is what commands act on."""
    assert toolbar_text(STATUS, 50).strip() == "task 94 init | cpu 3 | frame 6 | 2 warnings"


def test_control_bytes_of_a_snapshot_stay_out_of_the_toolbar() -> None:
    """A task may call itself anything."""
    text = toolbar_text(Status("5\x1b]0;x\x07", 1, "a\x1b[2Jb\n", None, 0, 0), 80)
    assert text.isprintable()
    assert "a\\x1b[2Jb\\n" in text


def test_the_status_follows_the_selection(debugger: Debugger) -> None:
    """Task, CPU and frame are the debugger's."""
    debugger.frame_index = 6
    status = read_status(debugger, "5.10.223")
    assert (status.release, status.pid, status.comm, status.cpu, status.frame) == ("5.10.223", 135, "cat", 0, 6)
