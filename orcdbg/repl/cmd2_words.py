"""How do cmd2's own commands and errors come to speak like orcdbg's?"""

from __future__ import annotations

import sys
from typing import NoReturn

import cmd2

from orcdbg.views.page import safe


class LineParser(cmd2.Cmd2ArgumentParser):
    """The parser of cmd2's own commands, with errors in one line and a hint."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and raises SystemExit, from which cmd2 goes back to the prompt."""
        usage = cmd2.string_utils.strip_style(self.format_usage()).strip()
        complain(f"{self.prog}: {message}", " ".join(usage.split()))
        sys.exit(2)


def adopt() -> None:
    """Makes shells that are created from now on use the parser, and fewer colours.

    A typed line shows one thing only: whether its first word is a command. cmd2 also colours what follows.
    """
    cmd2.set_default_argument_parser(LineParser)
    styles = cmd2.Cmd2Style
    words = (styles.LEXER_COMMAND, styles.LEXER_ALIAS, styles.LEXER_MACRO)
    plain = (styles.LEXER_FLAG, styles.LEXER_ARGUMENT)
    cmd2.update_theme({str(style): "bold" for style in words} | {str(style): "none" for style in plain})


def complain(message: str, hint: str | None = None) -> None:
    """One line on standard error, and the hint where there is one."""
    print(safe(f"orcdbg: {message}"), file=sys.stderr)
    if hint:
        print(safe(f"hint: {hint}"), file=sys.stderr)


def describe(error: object) -> str:
    """What went wrong, in a line: for a file that cannot be written, which file and why."""
    cause = error.__cause__ if isinstance(error, Exception) else None
    if isinstance(cause, OSError):
        return f"{cause.filename}: cannot be written: {cause.strerror}"
    return " ".join(str(error).split("\n"))
