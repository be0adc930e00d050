"""The line that says what is still running: only on a terminal, only after a while, and gone afterwards."""

from __future__ import annotations

import io
import time

import pyte
import pytest

from orcdbg.views.waiting import DELAY, Waiting


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Always."""
        return True


def test_a_quick_command_leaves_no_trace() -> None:
    """Nothing is written before the delay."""
    out = Terminal()
    with Waiting("bt", out):
        pass
    assert out.getvalue() == ""


def test_a_slow_command_is_named_and_the_line_is_erased() -> None:
    """Control characters of the command do not reach the terminal; afterwards the line is empty."""
    out = Terminal()
    screen = pyte.Screen(80, 2)
    with Waiting("patch list\x1b[2J", out):
        time.sleep(DELAY * 2)
        written = out.getvalue()
    pyte.Stream(screen).feed(written)
    assert screen.display[0].startswith("orcdbg: patch list")
    assert screen.display[0].rstrip().endswith("... 0 s")
    assert "\x1b[2J" not in written
    pyte.Stream(screen).feed(out.getvalue()[len(written) :])
    assert screen.display[0].strip() == ""


def test_a_file_gets_nothing() -> None:
    """Logs are not filled with it."""
    out = io.StringIO()
    with Waiting("patch list", out):
        time.sleep(DELAY * 1.5)
    assert out.getvalue() == ""


def test_an_interrupted_command_is_erased_too() -> None:
    """The exception passes, the line does not stay."""
    out = Terminal()
    with pytest.raises(KeyboardInterrupt), Waiting("patch list", out):
        time.sleep(DELAY * 1.5)
        raise KeyboardInterrupt
    assert out.getvalue().endswith("\r\x1b[K")
