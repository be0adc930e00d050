"""Where do answers, warnings and errors go, and in which form?"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from typing import IO, TextIO

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.result import Result
from orcdbg.views.page import paint, safe


@dataclass(frozen=True, slots=True)
class Output:
    """How answers are printed: `width` in columns is None where lines may be as long as they like."""

    format: str
    color: bool
    width: int | None

    @property
    def is_json(self) -> bool:
        """True where programs read the answers."""
        return self.format == "json"

    def answer(self, command: str, result: Result, out: IO[str]) -> None:
        """Prints a command's result."""
        if self.is_json:
            from orcdbg.views.as_json import json_pieces

            out.writelines(json_pieces(command, result))
        elif self.color:
            from orcdbg.views.as_text import lines_of

            paint(lines_of(result, self.width), out, self.width)
        else:
            from orcdbg.views.as_text import text_pieces

            out.writelines(text_pieces(result, self.width))

    def failure(self, command: str, error: OrcdbgError, out: IO[str]) -> None:
        """Prints a command's error: for JSON as the command's line, else for people on standard error."""
        if self.is_json:
            from orcdbg.views.as_json import error_envelope

            out.write(json.dumps(error_envelope(command, error), ensure_ascii=True) + "\n")
        else:
            complain(error, command.split(" ", 1)[0])


def answer_alone(form: str, command: str, result: Result) -> None:
    """Prints the one answer of a program on standard output, coloured and as wide as its terminal where it is one."""
    output = Output(form, wants_color("auto", sys.stdout), terminal_width(sys.stdout))
    output.answer(command, result, sys.stdout)


def complain(error: OrcdbgError, command: str | None = None) -> None:
    """One line on standard error, and the hint where there is one."""
    from orcdbg.views.as_text import failure_text

    print(failure_text(error, command, terminal_width(sys.stderr)), end="", file=sys.stderr)


def warn(message: str) -> None:
    """A warning on standard error."""
    print(safe(f"orcdbg: warning: {message}"), file=sys.stderr)


def wants_color(choice: str, out: TextIO) -> bool:
    """Whether to colour: as asked, else on a terminal unless NO_COLOR is set (https://no-color.org)."""
    if choice != "auto":
        return choice == "always"
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width(out: TextIO) -> int | None:
    """The terminal's columns; None where the output is no terminal."""
    return shutil.get_terminal_size((80, 24)).columns if out.isatty() else None
