"""When an answer goes to a pager."""

from __future__ import annotations

import os

import pytest

from orcdbg.repl.pager import find_pager, is_too_long, rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a\n", 1),
        ("a\n\nb\n", 3),
        ("0123456789\n", 1),
        ("0123456789x\n", 2),
        ("\x1b[1m0123456789\x1b[0m\n", 1),
    ],
)
def test_rows_are_counted_as_a_terminal_breaks_lines(text: str, expected: int) -> None:
    """Long lines take several; colours take no room."""
    assert rows(text, 10) == expected


def test_an_answer_that_leaves_room_for_the_prompt_is_not_paged() -> None:
    """The prompt and the toolbar need a row each."""
    screen = os.terminal_size((80, 24))
    assert not is_too_long("line\n" * 22, screen)
    assert is_too_long("line\n" * 23, screen)


def test_without_less_there_is_no_pager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is then printed as it is."""
    monkeypatch.setenv("PATH", "")
    assert find_pager() is None
