"""Which words does the shell add to the commands, and what does `help` say about them?

They are cmd2's own. As commands of the registry they stand in `help` and are completed like all others; the shell hands
them to cmd2 and never runs them through the registry.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command, Registry
from orcdbg.commands.result import Result

GROUP = "shell"


def _at_the_prompt_only(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    raise UsageError("this word works at the prompt only")


@dataclass(frozen=True, slots=True)
class ShellWord(Command):
    """A word that cmd2 answers."""

    def help_lines(self) -> list[str]:
        """The summary and the examples; the words of cmd2's parser are a question to cmd2."""
        width = max(len(line) for line, _ in self.examples)
        shown = [f"  {line:<{width}}  {what}" for line, what in self.examples]
        return [f"{self.name}: {self.summary}", "", "examples:", *shown, "", f"`{self.name} -h` shows its words."]


def _word(name: str, summary: str, *examples: tuple[str, str]) -> ShellWord:
    return ShellWord(name, summary, GROUP, _at_the_prompt_only, examples=examples)


WORDS = (
    _word(
        "alias",
        "give the beginning of a line a short name",
        ("alias users ps -u", "`users` then lists the user tasks"),
        ("alias list", "the aliases there are"),
    ),
    _word(
        "macro",
        "give a line with places to fill in a short name",
        ("macro create why bt --why {1}", "`why 6` then explains frame 6"),
        ("macro list", "the macros there are"),
    ),
    _word(
        "history",
        "show, run again or save typed lines",
        ("history", "the lines of this session"),
        ("history -r 3", "run line 3 again"),
        ("history -o today.orc", "write them to a file that run_script reads"),
    ),
    _word("run_script", "run the commands in a file", ("run_script today.orc", "one command a line")),
    _word(
        "shell",
        "run a program",
        ("!date", "`!` is short for shell"),
        ("bt | less", "a command's answer into a program"),
    ),
)


_ALIAS_WORDS = ("create", "delete", "list")


def as_cmd2_has_it(line: str) -> str:
    """A line with crash's `alias NAME LINE` as cmd2 has it; crash's `alias` alone lists them, as here."""
    words = line.split(None, 2)
    if len(words) < 3 or words[0] != "alias" or words[1] in _ALIAS_WORDS or words[1].startswith("-"):
        return "alias list" if words == ["alias"] else line
    return f"alias create {words[1]} {words[2]}"


def add_shell_words(registry: Registry) -> None:
    """Adds the words, except those that a plug-in uses for a command of its own."""
    for word in WORDS:
        if registry.find(word.name) is None:
            registry.add(word)
