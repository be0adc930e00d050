"""The form in which an answer leaves the shell."""

from __future__ import annotations

import io
from typing import IO, TextIO

import pytest

from orcdbg.cli.output import Output
from orcdbg.commands.sys import Fact, System
from orcdbg.repl.answers import Answers

ANSWER = System([Fact("kernel", "KERNEL", "vmlinux")])


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        """It says that it is one."""
        return True


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        """Nobody reads."""
        raise BrokenPipeError


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> TextIO:
    """A terminal of 80 columns and 24 lines."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return _Terminal()


def test_a_terminal_gets_colour(terminal: TextIO) -> None:
    """When the user wants it."""
    Answers(Output("text", True, 80), terminal).write("sys", ANSWER, terminal, None)
    assert "\x1b[" in terminal.getvalue()  # type: ignore[attr-defined]


def test_a_file_or_program_gets_plain_text_of_any_width(terminal: TextIO) -> None:
    """What it does with the text is not to depend on a window."""
    out = io.StringIO()
    long = System([Fact("kernel", "KERNEL", "x" * 200)])
    Answers(Output("text", True, 80), terminal).write("sys", long, out, None)
    assert out.getvalue() == "      KERNEL: " + "x" * 200 + "\n"


def test_json_stays_json_when_it_is_redirected(terminal: TextIO) -> None:
    """One line for each command."""
    out = io.StringIO()
    Answers(Output("json", True, 80), terminal).write("sys", ANSWER, out, None)
    assert out.getvalue().startswith('{"schema": 1, "command": "sys", "ok": true')


def test_a_program_that_stops_reading_is_no_error(terminal: TextIO) -> None:
    """`head` does so."""
    Answers(Output("text", False, None), terminal).write("sys", ANSWER, _Closed(), None)


@pytest.mark.parametrize(("lines", "is_paged"), [(5, False), (60, True)])
def test_what_is_longer_than_the_screen_is_paged(terminal: TextIO, lines: int, is_paged: bool) -> None:
    """And nothing else."""
    pages: list[str] = []
    answer = System([Fact("kernel", "KERNEL", number) for number in range(lines)])
    Answers(Output("text", False, 80), terminal).write("sys", answer, terminal, pages.append)
    assert (len(pages) == 1) == is_paged
    assert bool(terminal.getvalue()) != is_paged  # type: ignore[attr-defined]


def test_the_width_follows_the_window_unless_it_was_given(terminal: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--width 60` stays 60."""
    widths: list[int | None] = []

    class _Watching(Output):
        def answer(self, command: str, result: object, out: IO[str]) -> None:
            widths.append(self.width)

    following, fixed = (Answers(_Watching("text", False, width), terminal) for width in (80, 60))
    monkeypatch.setenv("COLUMNS", "120")
    for answers in (following, fixed):
        answers.write("sys", ANSWER, terminal, None)
    assert widths == [120, 60]
