"""Which commands exist, what are their words, and how is a line of them run?"""

from __future__ import annotations

import argparse
import enum
import re
import shlex
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from orcdbg.base.errors import NO_MEMORY, OrcdbgError, UsageError, WordPlace, failure_of
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result, TextLines
from orcdbg.commands.usage import PlainParser, brief_usage, help_line

Run = Callable[[Debugger, argparse.Namespace], Result]
AddArguments = Callable[[argparse.ArgumentParser], None]


class Effect(enum.Enum):
    """What a command does besides answering. The words follow the command's name where it is refused for that."""

    NONE = "only answers"
    """It reads the snapshot, and changes at most what this session has selected, set or stepped. (Where a live guest is in the
    snapshot's place, stepping moves that.)"""

    READS_FILES = "reads files that its words name"
    WRITES_FILES = "writes a file"
    RUNS_CODE = "runs code that is not orcdbg's"
    MOVES_GUEST = "lets a live guest run"
    ENDS_SESSION = "ends the session"


# What a command does, or what it does with the words that its parser read.
DeclaredEffect = Effect | Callable[[argparse.Namespace], Effect | None]


class _HelpRequested(Exception):
    """`-h` was among the words; `prog` is the command, or the part of one, that it was said to."""

    def __init__(self, prog: str, text: str) -> None:
        super().__init__(prog)
        self.prog = prog
        self.text = text


class CommandParser(PlainParser):
    """An argument parser that raises UsageError where argparse would print and leave."""

    _refused: str | None = None  # a value that its argument does not take

    def error(self, message: str) -> NoReturn:
        failed = sys.exc_info()[1]  # argparse reports what it has just caught
        word = self._refused
        if word is None and isinstance(failed, argparse.ArgumentError):
            # Of several names of the option that one which was typed is found in the line.
            names = (failed.argument_name or "").split("/")
            word = next((name for name in names if name in self._given), None)
        # A function of ours that reads a value has a name that begins with _.
        raise UsageError(message.replace(" invalid _", " invalid "), brief_usage(self), word=word)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's."""
        self._given = list(args or ())
        return super().parse_known_args(args, namespace)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        self._refused = arg_string
        value = super()._get_value(action, arg_string)
        self._refused = None
        return value

    def _check_value(self, action: argparse.Action, value: object) -> None:
        self._refused = str(value)
        super()._check_value(action, value)
        self._refused = None

    def _unrecognized(self, words: Sequence[str]) -> UsageError:
        return UsageError(
            f"unrecognized arguments: {' '.join(words)}", lambda: self._instead_of(words[0]), word=words[0]
        )

    def _instead_of(self, word: str) -> str:
        """What may help where a word has no place in the line."""
        from orcdbg.base.near_names import did_you_mean, near_names  # only where something went wrong

        options = [name for action in self._actions for name in action.option_strings]
        near = did_you_mean(near_names(word, options)) if word.startswith("-") else None
        return brief_usage(self) if near is None else f"{near} `{help_line(self)}` lists the options"

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Reads the words; an option may stand between operands, as people from crash write it."""
        given = {} if namespace is None else dict(vars(namespace))
        try:
            read, rest = self.parse_known_args(args, namespace)
            if rest:
                raise self._unrecognized(rest)
            return read
        except UsageError as error:
            plain = all(action.nargs not in (argparse.PARSER, argparse.REMAINDER) for action in self._actions)
            if not plain or args is None or "--" in args:
                raise
            try:
                return self.parse_intermixed_args(args, argparse.Namespace(**given))
            except UsageError:
                raise error from None  # what is said of the line as it stands is the clearer

    def print_help(self, file: object = None) -> NoReturn:
        """Help is an answer like any other, and is not printed here."""
        raise _HelpRequested(self.prog, self.format_help())


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, where it stands in `help`, and the function that answers.

    `examples` are (line, what it shows) pairs. `operands` says what completion offers for words that are not options:
    any of "symbol", "task", "setting", "command", "frame", "mechanism", "structure". `has_own_h` is true where `-h` means
    something else than help, as crash's users know it; `--help` is help everywhere. A command that `takes_expression` gets
    the rest of its line as it was written, quotes and all; a redirection in it has a blank before it (`redirections`).
    One that `takes_brackets` gets it so where its first operand is an expression in brackets. Where a command
    `has_expressions`, any word of it may be one: `->` in it is no redirection, and what brackets are around is one word.
    `effect` is None where the command does not say what it does besides answering, as older plug-ins' do not.
    """

    name: str
    summary: str
    group: str
    run: Run
    arguments: AddArguments = lambda parser: None
    aliases: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    operands: tuple[str, ...] = ()
    has_own_h: bool = False
    takes_expression: bool = False
    takes_brackets: bool = False
    has_expressions: bool = False
    effect: DeclaredEffect | None = None

    def effect_of(self, arguments: argparse.Namespace) -> Effect | None:
        """What the command does with these words, besides answering; None where it does not say."""
        return self.effect(arguments) if callable(self.effect) else self.effect

    def parser(self) -> CommandParser:
        """The parser of its words."""
        conflicts = "resolve" if self.has_own_h else "error"
        parser = CommandParser(prog=self.name, description=self.summary, allow_abbrev=False, conflict_handler=conflicts)
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


def command(
    name: str,
    *,
    summary: str,
    group: str,
    arguments: AddArguments = lambda parser: None,
    aliases: Sequence[str] = (),
    operands: Sequence[str] = (),
    examples: Sequence[tuple[str, str]] = (),
    has_own_h: bool = False,
    takes_expression: bool = False,
    takes_brackets: bool = False,
    has_expressions: bool = False,
    effect: DeclaredEffect | None = None,
) -> Callable[[Run], Command]:
    """Makes a command of the function below it, which answers with a result and prints nothing.

    Args:
        name: the word that the user types.
        summary: what it does, in a few words without a full stop; for `help`, completion and the man page.
        group: the heading of `help` that it stands under.
        arguments: adds the command's options and operands to its parser.
        aliases: further words for it.
        operands: what completion offers for words that are not options, as in `Command`.
        examples: lines, and what each of them shows.
        has_own_h: whether `-h` is one of its options, not help.
        takes_expression: the line behind the options is one operand, a C expression; a format may stand behind the
            word, `p/x`, which the function gets as `arguments.format`.
        takes_brackets: where the first operand is in brackets, it and all behind it are one operand.
        has_expressions: each word may be a C expression, with blanks where brackets are around them.
        effect: what the command does besides answering, or a function that tells that of its parsed words. Who runs
            commands for others, as `orcdbg mcp` does, lets none run that does not say.
    """

    def declare(run: Run) -> Command:
        words = tuple(aliases), tuple(examples), tuple(operands)
        kinds = has_own_h, takes_expression, takes_brackets, has_expressions
        return Command(name, summary, group, run, arguments, *words, *kinds, effect)

    return declare


class Library(Protocol):
    """Commands that are loaded when they are asked for."""

    def find(self, word: str) -> Command | None:
        """The command with that name or alias."""
        ...

    def all(self) -> Iterable[Command]:
        """All of them, in the order of `help`."""
        ...


class Registry:
    """The commands by name and alias.

    Args:
        commands: those to begin with.
        library: further ones, of which only those that are asked for are loaded.
    """

    def __init__(self, commands: Iterable[Command] = (), library: Library | None = None) -> None:
        self._library = library
        self._added: dict[str, Command] = {}
        self._words: dict[str, Command] = {}
        # Loads files with plug-ins, and says what there is to say; the command line knows how.
        self.extend: Callable[[Sequence[str]], list[str]] | None = None
        for added in commands:
            self.add(added)

    def add(self, command: Command) -> None:
        """Adds a command; UsageError when one of its words is taken."""
        for word in (command.name, *command.aliases):
            taken = self.find(word)
            if taken is not None:
                raise UsageError(f"the command word {word} is taken by {taken.name}")
            self._words[word] = command
        self._added[command.name] = command

    @property
    def commands(self) -> dict[str, Command]:
        """All commands by name: the library's in its order, then those that were added."""
        own = self._library.all() if self._library is not None else ()
        return {command.name: command for command in own} | self._added

    @property
    def words(self) -> list[str]:
        """Every word that begins a command, sorted."""
        return sorted(word for command in self.commands.values() for word in (command.name, *command.aliases))

    def find(self, word: str) -> Command | None:
        """The command that a first word names."""
        if word in self._words or self._library is None:
            return self._words.get(word)
        return self._library.find(word)

    def unknown(self, word: str) -> UsageError:
        """The error that a word is for that begins no command; one that crash or gdb has says what to use here."""
        from orcdbg.commands.known_words import hint_for  # only where something went wrong

        known = hint_for(self, word)
        hint = known or (lambda: self._near(word) or "`help` lists the commands")
        return UsageError(f"no such command: {word}", hint, word=word)

    def _near(self, word: str) -> str | None:
        from orcdbg.base.near_names import did_you_mean, near_names  # only where something went wrong

        return did_you_mean(near_names(word, self.words))

    def run(self, debugger: Debugger, line: str, allowed: Container[Effect] | None = None) -> Result:
        """Runs one line.

        The function that answers gets this registry as `arguments.registry`, which is what `help` speaks of.

        Args:
            debugger: what the command works on.
            line: the command and its words.
            allowed: what the command may do besides answering; None for anything.

        Raises:
            UsageError: the line is no command, or does what is not allowed.
            OrcdbgError: the command failed.
        """
        try:
            return self._run(debugger, line, allowed)
        except UsageError as error:
            error.locate(line)
            raise

    def _run(self, debugger: Debugger, line: str, allowed: Container[Effect] | None) -> Result:
        expression = self.expression_line(line)
        if expression is not None:
            command, given, words = expression.command, expression.format, expression.words()
        else:
            first, *words = split(line) or [""]
            found, given = self.find(first), ""
            if not first:
                raise UsageError("no command")
            if found is None:
                found = self._of_structure(debugger, first)
                words = [first.removeprefix("*"), *words]
            command = found
            words = _joined_in_brackets(words) if command.has_expressions else words
        try:
            arguments = command.parser().parse_args(words, argparse.Namespace(registry=self, format=given))
            if allowed is not None:
                _refuse_others(command, command.effect_of(arguments), allowed)
            debugger.look_anew()
            return command.run(debugger, arguments)
        except _HelpRequested as asked:
            # Also of a command that another runs: `foreach ps -h`.
            return TextLines(command.help_lines() if asked.prog == command.name else asked.text.rstrip().splitlines())
        except BrokenPipeError:
            raise
        except OSError as error:
            # A name that no file can have, too many open files: no command can go on, and the next one may.
            if error.filename is None:
                raise OrcdbgError(f"the system refuses: {error.strerror or error}") from error
            raise failure_of(error) from error
        except MemoryError as error:
            raise OrcdbgError(NO_MEMORY) from error

    def _of_structure(self, debugger: Debugger, word: str) -> Command:
        """`struct`, where a line begins with a structure and its members, as crash takes `*NAME` and `NAME.MEMBER` for one.

        Raises:
            UsageError: the word is none, or known as a word of another debugger.
        """
        from orcdbg.commands.known_words import hint_for  # only where a word is no command

        found = self.find("struct")
        name = word.removeprefix("*")
        if found is None or not name or hint_for(self, word) is not None:
            raise self.unknown(word)
        from orcdbg.commands.struct import is_structure

        if not is_structure(debugger, name):
            raise self.unknown(word)
        return found

    def expression_line(self, line: str) -> ExpressionLine | None:
        """A line of a command that takes an expression, taken apart; None for any other line."""
        word, rest = _first_word(line)
        head, slash, given = word.partition("/")
        command = self._taking_expression(f"{head}/" if slash else word) or self._taking_expression(head)
        if command is None:
            # As gdb reads `p*pointer` and `p$rip`: the word ends where no letter follows.
            letters = re.match(r"[a-z]+(?=[^\w\s./:-])", line.strip())
            command = self._taking_expression(letters.group()) if letters and self.find(word) is None else None
            if letters is None or command is None:
                return self._bracketed(word, rest) if "(" in rest else None
            return ExpressionLine(command, "", line.strip()[letters.end() :].strip())
        if not slash and re.match(r"/\w+(\s|$)", rest):
            given, rest = _first_word(rest[1:])
        return ExpressionLine(command, given, rest)

    def has_expressions(self, line: str) -> bool:
        """Whether the words of a line may be expressions."""
        command = self.find(_first_word(line)[0])
        return command is not None and command.has_expressions

    def _bracketed(self, word: str, rest: str) -> ExpressionLine | None:
        """The line of a command that takes an expression in brackets, if its first operand is one."""
        command = self.find(word)
        if command is None or not command.takes_brackets:
            return None
        line = ExpressionLine(command, "", rest)
        return line if line.words()[-1].startswith("(") else None

    def _taking_expression(self, word: str) -> Command | None:
        command = self.find(word)
        return command if command is not None and command.takes_expression else None


@dataclass(frozen=True, slots=True)
class ExpressionLine:
    """A line of a command that takes an expression.

    Attributes:
        command: the command.
        format: what stands behind `/`, empty without.
        rest: options and expression, as written.
    """

    command: Command
    format: str
    rest: str

    def words(self) -> list[str]:
        """What the command's parser reads: its options, and all that follows them as one word."""
        flags = {flag for action in self.command.parser()._actions for flag in action.option_strings}
        words: list[str] = []
        rest = self.rest
        while True:
            word, behind = _first_word(rest)
            if word not in flags:
                # `p -1` and `p --x` are expressions, which argparse would take for options.
                return [*words, "--", rest] if rest else words
            words.append(word)
            rest = behind


def _refuse_others(command: Command, effect: Effect | None, allowed: Container[Effect]) -> None:
    """Raises UsageError for a command that does what is not allowed, or that does not say what it does."""
    if effect is None:
        raise UsageError(f"not run here: {command.name} does not say what it does besides answering")
    if effect not in allowed:
        raise UsageError(f"not run here: with these words, {command.name} {effect.value}")


def _joined_in_brackets(words: Sequence[str]) -> list[str]:
    """Words, those between an opening bracket and the one that closes it in one."""
    joined: list[str] = []
    depth = 0
    for word in words:
        if depth > 0:
            joined[-1] += f" {word}"
        else:
            joined.append(word)
        depth += sum((char in "([") - (char in ")]") for char in word)
    return joined


def _first_word(line: str) -> tuple[str, str]:
    """What stands before the first blank, and the rest."""
    word, *rest = line.split(None, 1) or [""]
    return word, rest[0].strip() if rest else ""


def split(line: str) -> list[str]:
    """The words of a line, quotes respected; UsageError for an open quote."""
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{error}: {line}", place=WordPlace(line, _open_quote(line))) from error


def _open_quote(line: str) -> int:
    """Where a quote opens that nothing closes; the line's end for a backslash there."""
    quote, opened, index = "", len(line), 0
    while index < len(line):
        char = line[index]
        if char == "\\" and quote != "'":
            index += 1
        elif char == quote:
            quote, opened = "", len(line)
        elif not quote and char in "'\"":
            quote, opened = char, index
        index += 1
    return opened
