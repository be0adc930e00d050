"""apropos: which commands, options and topics of help have to do with a word?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.help_topics import TOPICS
from orcdbg.commands.known_words import TOPICS as OTHER_DEBUGGERS
from orcdbg.commands.registry import Effect, Registry, command
from orcdbg.commands.result import NoneFits, Result


@dataclass(frozen=True, slots=True)
class HelpMatch:
    """A line that can be typed, and what it shows or does."""

    line: str
    summary: str


@dataclass(frozen=True, slots=True)
class HelpMatches(Result):
    """What a word was found in: commands, then options, then topics of help."""

    matches: Sequence[HelpMatch]


def _commands(registry: Registry) -> Iterator[HelpMatch]:
    for each in registry.commands.values():
        yield HelpMatch(", ".join((each.name, *each.aliases)), each.summary)


def _options(registry: Registry) -> Iterator[HelpMatch]:
    for each in registry.commands.values():
        yield from _of_parser(each.parser())


def _of_parser(parser: argparse.ArgumentParser) -> Iterator[HelpMatch]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield HelpMatch(f"{parser.prog} {choice.dest}", choice.help or "")
            for sub in action.choices.values():
                yield from _of_parser(sub)
        elif action.option_strings and action.help not in (None, argparse.SUPPRESS) and action.dest != "help":
            yield HelpMatch(f"{parser.prog} {', '.join(action.option_strings)}", str(action.help).replace("%%", "%"))


def _topics() -> Iterator[HelpMatch]:
    for name, topic in TOPICS.items():
        yield HelpMatch(f"help {name}", topic.summary)
    for name, (heading, _) in OTHER_DEBUGGERS.items():
        yield HelpMatch(f"help {name}", heading)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="WORD", help="words, or parts of words, all of which must occur")


@command(
    "apropos",
    summary="find commands, options and topics of help by a word",
    group="session",
    effect=Effect.NONE,
    arguments=_arguments,
    examples=(("apropos idle", "what has to do with idle tasks"), ("apropos stack word", "both words")),
)
def apropos(debugger: Debugger, arguments: argparse.Namespace) -> Result:
    """Answers with those whose names or summaries have all of the words."""
    registry: Registry = arguments.registry
    wanted = [word.lower() for word in arguments.words]
    listed = (*_commands(registry), *_options(registry), *_topics())
    found = [each for each in listed if all(word in f"{each.line} {each.summary}".lower() for word in wanted)]
    answer = HelpMatches(found)
    return answer if found else NoneFits("commands, options or topics", answer)
