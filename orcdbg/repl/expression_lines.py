"""How does a line with a C expression reach its command whole?

cmd2 splits any line at blanks, quotes, `>` and `|` before it looks for the command, and would write what `mm->pgd` prints
into a file `pgd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cmd2
from cmd2.parsing import StatementParser

from orcdbg.base.errors import UsageError
from orcdbg.commands.redirections import split_redirection
from orcdbg.commands.registry import Registry


@dataclass(frozen=True)
class RefusedStatement(cmd2.Statement):
    """A line whose redirection cannot be meant, and why."""

    refusal: UsageError | None = None


def install(parser: StatementParser, registry: Registry) -> None:
    """Has a parser leave expressions alone."""
    setattr(parser, "parse", partial(_parse, parser, registry))  # noqa: B010  the class has it as a method


def _parse(parser: StatementParser, registry: Registry, line: str) -> cmd2.Statement:
    expanded = parser._expand(line)
    expression = registry.expression_line(expanded)
    if expression is None:
        return StatementParser.parse(parser, line)

    if "\n" in expanded.strip():
        # A block of Python, in which `>` and `|` are Python's.
        word, code = expanded.split(None, 1)
        return cmd2.Statement(code, raw=line, command=word)

    try:
        command, operator, target = split_redirection(registry, expanded)
    except UsageError as error:
        return RefusedStatement("", raw=line, command=expanded.split(None, 1)[0], refusal=error)
    word, _, arguments = command.partition(" ")
    if operator in (">", ">>"):
        target = cmd2.utils.expand_user(target)
    return cmd2.Statement(arguments.strip(), raw=line, command=word, redirector=operator, redirect_to=target)
