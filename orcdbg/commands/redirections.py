"""Where does a line's command end, and where does its answer go?

The line is parsed for its command first: in a C expression `>` compares, `->` follows a pointer and `|` is an operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import UsageError, WordPlace
from orcdbg.commands.registry import Registry

# What stands with a blank in front and outside of brackets and is none the less C's.
_OPERATORS = re.compile(r"\|\||>=|>>=|\|=")
_MEMBER_BEHIND = re.compile(r"->\s*[A-Za-z_]")
_NUMBER = re.compile(r"\d\w*")


class Redirection(NamedTuple):
    """A line taken apart.

    Attributes:
        command: the line up to the redirection.
        operator: `|`, `>`, `>>`, or empty.
        target: the file, or the other program's line.
    """

    command: str
    operator: str
    target: str


def split_redirection(registry: Registry, line: str) -> Redirection:
    """A line's command and where its answer goes.

    In a line of a command that takes an expression, a pipe or redirection has a blank before it and stands outside of
    brackets, as in crash. In a line whose words may be expressions, `->` and what stands in brackets are C. In any other
    line it may stand anywhere outside of quotes.

    Raises:
        UsageError: nothing follows the operator, or what follows is a number, which is C and no file.
    """
    if registry.expression_line(line) is None:
        in_expressions = registry.has_expressions(line)
        return _split(line, _place_among_expressions(line) if in_expressions else _place_in_words(line))
    found = _split(line, _place_behind_expression(line))
    if found.operator and _NUMBER.fullmatch(found.target):
        word, _, expression = found.command.partition(" ")
        computed = f"{word} ({expression} {found.operator} {found.target})"
        raise UsageError(
            f"{found.operator} with a blank before it sends the answer elsewhere, and {found.target} is a number",
            f"to compute: {computed}; a file of that name is ./{found.target}",
            place=WordPlace(line, line.rstrip().rindex(found.target), len(found.target)),
        )
    return found


def _split(line: str, place: int | None) -> Redirection:
    if place is None:
        return Redirection(line.strip(), "", "")
    operator = ">>" if line[place : place + 2] == ">>" else line[place]
    rest = line[place + len(operator) :].strip()
    if not rest:
        raise UsageError(f"nothing after {operator}: {line}", place=WordPlace(line, place, len(operator)))
    return Redirection(line[:place].strip(), operator, rest)


def _place_in_words(line: str) -> int | None:
    """The first operator that no quotes are around."""
    quote = ""
    for index, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "|>":
            return index
    return None


def _outside(line: str) -> Iterator[int]:
    """The places of `|` and `>` that neither quotes nor brackets are around."""
    depth = 0
    index = 0
    while index < len(line):
        char = line[index]
        if char in "'\"":
            index = _end_of_quotes(line, index)
            continue
        depth += (char in "([") - (char in ")]")
        if char in "|>" and depth <= 0:
            yield index
        index += 1


def _place_among_expressions(line: str) -> int | None:
    """The first operator that neither quotes nor brackets are around, and that is no `->`."""
    return next((index for index in _outside(line) if line[index] == "|" or not _is_arrow(line, index)), None)


def _is_arrow(line: str, index: int) -> bool:
    return _MEMBER_BEHIND.match(line, index - 1) is not None


def _place_behind_expression(line: str) -> int | None:
    """The first operator with a blank before it, outside of brackets and of characters in quotes."""
    end = 0  # of an operator of C, which may be made of several of these characters
    for index in _outside(line):
        if index < end or not line[index - 1 : index].isspace():
            continue
        operator = _OPERATORS.match(line, index)
        if operator is None:
            return index
        end = operator.end()
    return None


def _end_of_quotes(line: str, start: int) -> int:
    """The place behind the quotes that begin there, a backslash keeping one open; the next one's where they have no end."""
    index = start + 1
    while index < len(line) and line[index] != line[start]:
        index += 2 if line[index] == "\\" else 1
    return index + 1 if index < len(line) else start + 1
