"""The words that the shell adds to the commands."""

from __future__ import annotations

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.help import overview
from orcdbg.commands.known_words import AT_THE_PROMPT
from orcdbg.commands.registry import Command, Registry
from orcdbg.commands.result import Nothing
from orcdbg.repl.shellwords import WORDS, ShellWord, add_shell_words


def test_help_lists_the_shells_words(registry: Registry) -> None:
    """In a group of their own."""
    add_shell_words(registry)
    lines = overview(registry)
    assert "SHELL" in lines
    assert all(any(line.startswith(f"  {word.name} ") for line in lines) for word in WORDS)


def test_help_on_a_word_shows_examples(registry: Registry) -> None:
    """And where the rest is."""
    add_shell_words(registry)
    command = registry.find("macro")
    assert command is not None
    lines = command.help_lines()
    assert any("macro create why bt --why {1}" in line for line in lines)
    assert lines[-1] == "`macro -h` shows its words."


def test_a_plug_ins_command_keeps_its_name(registry: Registry) -> None:
    """The shell's word gives way."""
    registry.add(Command("history", "of the kernel", "machine", lambda debugger, arguments: Nothing()))
    add_shell_words(registry)
    assert not isinstance(registry.find("history"), ShellWord)


def test_the_pages_for_people_from_elsewhere_know_the_words() -> None:
    """Which a script's line cannot have."""
    assert {word.name for word in WORDS} == AT_THE_PROMPT


def test_a_word_is_refused_away_from_the_prompt(debugger: Debugger, registry: Registry) -> None:
    """Only cmd2 can answer it."""
    add_shell_words(registry)
    with pytest.raises(UsageError):
        registry.run(debugger, "alias")
