"""What could the word under the cursor become?

Pure: the registry's parsers and sources of names in, offers out. Names are sorted lists that are searched by bisection:
a key answers in the same time whether a kernel has a thousand symbols or a million.
"""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.commands.registry import Command, Registry

LIMIT = 100
# Options whose values completion knows; what an operand may be stands in `Command.operands`.
_KIND_OF_OPTION = {"mechanism": "mechanism", "symbol": "symbol", "ip": "symbol", "why": "frame", "cpu": "cpu"}
_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Offer:
    """A word that can stand at the cursor: `note` explains it; when `whole` is false, more of the word must follow."""

    text: str
    note: str = ""
    whole: bool = True


Source = Callable[[str], Sequence[Offer]]


def matches(names: Sequence[str], prefix: str, notes: Mapping[str, str] | None = None) -> list[Offer]:
    """The names in a sorted list that begin with `prefix`.

    When they are more than LIMIT, what they all begin with; when that is no more than `prefix`, some of them.
    """
    low = bisect_left(names, prefix)
    high = bisect_left(names, prefix + _LAST_CHARACTER, low)
    known = notes or {}
    if high - low <= LIMIT:
        return [Offer(name, known.get(name, "")) for name in names[low:high]]
    shared = _shared_beginning(names[low], names[high - 1])
    if len(shared) > len(prefix):
        return [Offer(shared, whole=False)]
    # With the last one among them, what the offers have in common is what all matches have in common.
    last = Offer(names[high - 1], f"{high - low - LIMIT} more are not shown")
    return [*(Offer(name, known.get(name, "")) for name in names[low : low + LIMIT - 1]), last]


def _shared_beginning(first: str, last: str) -> str:
    """What the first and the last of some sorted names begin with, and so all of them."""
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


class _Place(NamedTuple):
    """Where in a command line the cursor is: the parser in charge, its operands so far, the option that waits."""

    parser: argparse.ArgumentParser
    operands: tuple[str, ...]
    used: frozenset[str]
    waiting: argparse.Action | None


class Completer:
    """Completes lines of commands.

    Args:
        registry: the commands.
        sources: for each kind of operand the function that offers words for a prefix.
    """

    def __init__(self, registry: Registry, sources: Mapping[str, Source]) -> None:
        self._registry = registry
        self._sources = sources

    def first_word(self, prefix: str, more: Mapping[str, str] | None = None) -> list[Offer]:
        """Commands; `more` are further words with their notes, such as the user's aliases."""
        notes = {word: command.summary for word in self._registry.words if (command := self._registry.find(word))}
        notes |= more or {}
        return matches(sorted(notes), prefix, notes)

    def later_word(self, words: Sequence[str], prefix: str) -> list[Offer]:
        """What can follow `words`, of which the first is a command's; nothing for an unknown command."""
        command = self._registry.find(words[0])
        if command is None:
            return []
        place = _place(command.parser(), words[1:])
        if place.waiting is not None:
            return self._values(place.waiting, prefix)
        if prefix.startswith("-"):
            return self._option(place, prefix)
        found = self._operand(command, place, prefix)
        return found if found or prefix else _options(place, prefix)

    def _option(self, place: _Place, prefix: str) -> list[Offer]:
        name, equals, value = prefix.partition("=")
        option = _find_option(place.parser, name)
        if not equals or option is None:
            return _options(place, prefix)
        return [Offer(f"{name}={offer.text}", offer.note, offer.whole) for offer in self._values(option, value)]

    def _values(self, option: argparse.Action, prefix: str) -> list[Offer]:
        if option.choices is not None:
            return matches(sorted(map(str, option.choices)), prefix)
        return self._of_kinds([_KIND_OF_OPTION.get(option.dest, "")], prefix)

    def _operand(self, command: Command, place: _Place, prefix: str) -> list[Offer]:
        operand = _positional(place.parser, len(place.operands))
        if operand is None:
            return []
        if isinstance(operand, argparse._SubParsersAction):
            notes = {choice.dest: choice.help or "" for choice in operand._choices_actions}
            return matches(sorted(operand.choices), prefix, notes)
        if operand.choices is not None:
            return matches(sorted(map(str, operand.choices)), prefix)
        kinds = _kinds(command, operand)
        if "setting" in kinds and place.operands:
            # After a setting's name comes its value, and after a task nothing.
            return []
        return self._of_kinds(kinds, prefix)

    def _of_kinds(self, kinds: Sequence[str], prefix: str) -> list[Offer]:
        return [offer for kind in kinds if kind in self._sources for offer in self._sources[kind](prefix)]


def _kinds(command: Command, operand: argparse.Action) -> list[str]:
    """The kinds of word that an operand takes: not those that an option of the command is for, unless it names them."""
    options = {action.dest for action in _all_actions(command.parser()) if action.option_strings}
    named = str(operand.metavar).lower().split("|")
    kinds = [kind for kind in command.operands if kind not in options or kind in named]
    # Frames are the one kind that is a number for argparse too; a count is a number and of no kind.
    return [kind for kind in kinds if (kind == "frame") == (operand.type is int)]


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _all_actions(below)


def _find_option(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    return next((action for action in parser._actions if word in action.option_strings), None)


def _positional(parser: argparse.ArgumentParser, index: int) -> argparse.Action | None:
    """The positional that takes operand number `index`, None where there are that many already."""
    for action in parser._actions:
        if action.option_strings:
            continue
        count = action.nargs if isinstance(action.nargs, int) else 1
        if index < count or action.nargs in ("*", "+", argparse.REMAINDER):
            return action
        index -= count
    return None


def _place(parser: argparse.ArgumentParser, words: Sequence[str]) -> _Place:
    """Reads a line the way argparse will, as far as it goes."""
    operands: list[str] = []
    used: set[str] = set()
    waiting: argparse.Action | None = None
    for word in words:
        option = _find_option(parser, word.partition("=")[0])
        if waiting is not None:
            waiting = None
        elif option is not None:
            used.update(option.option_strings)
            waiting = option if option.nargs != 0 and "=" not in word else None
        elif not word.startswith("-"):
            branch = _positional(parser, len(operands))
            if isinstance(branch, argparse._SubParsersAction) and word in branch.choices:
                parser, operands = branch.choices[word], []
            else:
                operands.append(word)
    return _Place(parser, tuple(operands), frozenset(used), waiting)


def _options(place: _Place, prefix: str) -> list[Offer]:
    """The options that are not there yet; `-h` only for those who began to type an option."""
    notes = {
        name: action.help or ""
        for action in place.parser._actions
        for name in action.option_strings
        if name not in place.used and (prefix or not isinstance(action, argparse._HelpAction))
    }
    return sorted(matches(sorted(notes), prefix, notes), key=lambda offer: (offer.text.lstrip("-").lower(), offer.text))
