"""Which commands exist, what are their words, and how is a line of them run?"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.results import Result, Text
from orcdbg.commands.usage import PlainParser, usage


class _HelpRequested(Exception):
    """`-h` was among the words; `prog` is the command, or the part of one, that it was said to."""

    def __init__(self, prog: str, text: str) -> None:
        super().__init__(prog)
        self.prog = prog
        self.text = text


class CommandParser(PlainParser):
    """An argument parser that raises UsageError where argparse would print and leave."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, usage(self))

    def print_help(self, file: object = None) -> NoReturn:
        """Help is an answer like any other, and is not printed here."""
        raise _HelpRequested(self.prog, self.format_help())


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, where it stands in `help`, and the function that answers.

    `examples` are (line, what it shows) pairs. `operands` says what completion offers for words that are not options:
    any of "symbol", "task", "setting", "command", "frame", "mechanism".
    """

    name: str
    summary: str
    group: str
    run: Callable[[Debugger, argparse.Namespace], Result]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    aliases: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    operands: tuple[str, ...] = ()

    def parser(self) -> CommandParser:
        """The parser of its words."""
        parser = CommandParser(prog=self.name, description=self.summary, allow_abbrev=False)
        self.arguments(parser)
        return parser

    def help_lines(self) -> list[str]:
        """Full help: usage, options, aliases and examples."""
        lines = self.parser().format_help().rstrip().splitlines()
        if self.aliases:
            lines += ["", "aliases: " + ", ".join(self.aliases)]
        if self.examples:
            width = max(len(line) for line, _ in self.examples)
            lines += ["", "examples:"] + [f"  {line:<{width}}  {what}" for line, what in self.examples]
        return lines


class Registry:
    """The commands by name and alias."""

    def __init__(self, commands: Iterable[Command] = ()) -> None:
        self.commands: dict[str, Command] = {}
        self._words: dict[str, Command] = {}
        for command in commands:
            self.add(command)

    def add(self, command: Command) -> None:
        """Adds a command; UsageError when one of its words is taken."""
        for word in (command.name, *command.aliases):
            if word in self._words:
                raise UsageError(f"the command word {word} is taken by {self._words[word].name}")
            self._words[word] = command
        self.commands[command.name] = command

    @property
    def words(self) -> list[str]:
        """Every word that begins a command, sorted."""
        return sorted(self._words)

    def find(self, word: str) -> Command | None:
        """The command that a first word names."""
        return self._words.get(word)

    def run(self, debugger: Debugger, line: str) -> Result:
        """Runs one line.

        Raises:
            UsageError: the line is no command.
            OrcdbgError: the command failed.
        """
        return self.run_words(debugger, split(line))

    def run_words(self, debugger: Debugger, words: Sequence[str]) -> Result:
        """Runs a line that is already split into words."""
        if not words:
            raise UsageError("no command")
        command = self.find(words[0])
        if command is None:
            raise UsageError(f"no such command: {words[0]}", "`help` lists the commands")
        try:
            arguments = command.parser().parse_args(words[1:])
        except _HelpRequested as asked:
            return Text(command.help_lines() if asked.prog == command.name else asked.text.rstrip().splitlines())
        return command.run(debugger, arguments)


def split(line: str) -> list[str]:
    """The words of a line, quotes respected; UsageError for an open quote."""
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{error}: {line}") from error
