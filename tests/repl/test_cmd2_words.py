"""cmd2's words in orcdbg's form."""

from __future__ import annotations

import pytest
from cmd2.exceptions import RedirectionError

from orcdbg.repl.cmd2_words import LineParser, complain, describe


def test_a_file_that_cannot_be_written_is_named() -> None:
    """cmd2 says only that redirection failed; the reason is in the cause."""
    error = RedirectionError("Failed to redirect output")
    error.__cause__ = FileNotFoundError(2, "No such file or directory", "/no/such")
    assert describe(error) == "/no/such: cannot be written: No such file or directory"


def test_other_errors_are_one_line() -> None:
    """Also those that cmd2 breaks into two."""
    assert describe("first\nsecond") == "first second"


def test_a_wrong_word_for_a_shell_command_is_a_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """As for any other command."""
    parser = LineParser(prog="alias")
    parser.add_argument("name")
    with pytest.raises(SystemExit):
        parser.parse_args([])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "orcdbg: alias: the following arguments are required: name"
    assert lines[1].startswith("hint: Usage: alias")
    assert len(lines) == 2


def test_errors_carry_no_control_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """Their text may come from a snapshot."""
    complain("task a\x1b[2J")
    assert capsys.readouterr().err == "orcdbg: task a\\x1b[2J\n"
