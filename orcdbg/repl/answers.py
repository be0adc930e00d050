"""In which form does an answer leave the shell: for a terminal, for a program, or for a file?"""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TextIO

from orcdbg.base.errors import OrcdbgError
from orcdbg.commands.repeat import Repeated
from orcdbg.commands.result import Result
from orcdbg.repl import pager


class Answerer(Protocol):
    """The command line's `Output`, as far as the shell needs it; a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def is_json(self) -> bool: ...

    @property
    def color(self) -> bool: ...

    @property
    def width(self) -> int | None: ...

    def answer(self, command: str, result: Result, out: TextIO) -> None: ...

    def failure(self, command: str, error: OrcdbgError, out: TextIO) -> None: ...


class Answers:
    """Writes answers.

    Args:
        output: how the user wants them.
        terminal: where they go unless a line says otherwise.
    """

    def __init__(self, output: Answerer, terminal: TextIO) -> None:
        self.output = output
        self._terminal = terminal
        # A width that differs from the terminal's was asked for, and stays when the window changes.
        self._follows_window = output.width == self.screen().columns

    def screen(self) -> os.terminal_size:
        """The terminal's size now."""
        return shutil.get_terminal_size((80, 24))

    def write(self, line: str, result: Result, out: TextIO, show_page: Callable[[str], None] | None) -> None:
        """Writes an answer into `out`; where that is a terminal and the answer too long for it, by `show_page`."""
        if isinstance(result, Repeated) and not self.output.is_json:
            for answer in result.rounds:  # each is shown when it is there, without a pager in between
                self.write(line, answer, out, None)
        elif out is not self._terminal:
            _into(dataclasses.replace(self.output, color=False, width=None), line, result, out)
        elif not out.isatty():
            _into(self.output, line, result, out)
        else:
            self._show(line, result, show_page)

    def _show(self, line: str, result: Result, show_page: Callable[[str], None] | None) -> None:
        screen = self.screen()
        output = dataclasses.replace(self.output, width=screen.columns) if self._follows_window else self.output
        text = io.StringIO()
        output.answer(line, result, text)
        if show_page is not None and pager.is_too_long(text.getvalue(), screen):
            show_page(text.getvalue())
        else:
            self._terminal.write(text.getvalue())
            self._terminal.flush()


def _into(output: Answerer, line: str, result: Result, out: TextIO) -> None:
    """Writes to what may stop reading early, as `head` does."""
    try:
        output.answer(line, result, out)
        out.flush()
    except BrokenPipeError:
        return
