"""Words that a command does not take."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.commands.registry import CommandParser


def test_a_long_usage_is_one_line() -> None:
    """As a hint it stands on one: an end of line in it would be shown by its escape."""
    parser = CommandParser(prog="long")
    for number in range(20):
        parser.add_argument(f"--option-{number}", type=int)
    with pytest.raises(UsageError) as caught:
        parser.parse_args(["--option-3", "word"])
    assert "--option-19" in str(caught.value.hint)
    assert "\n" not in str(caught.value.hint)
