"""How are commands run without a prompt, one after another?"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import IO

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat, UsageError
from orcdbg.base.inputs import remember
from orcdbg.cli.options import Step
from orcdbg.cli.output import Output, warn
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.quit import Quit
from orcdbg.commands.registry import Registry
from orcdbg.commands.result import Result
from orcdbg.commands.writing import open_output, refuse_inputs
from orcdbg.views.waiting import Waiting


def lines_of(steps: Iterable[tuple[Step, str]]) -> Iterator[str]:
    """The command lines that -e and -x name, in order."""
    for kind, value in steps:
        if kind is Step.COMMAND:
            yield value
        elif value.endswith(".py"):
            yield f"py -x {value}"
        else:
            yield from read_lines(value)


def read_lines(path: str) -> list[str]:
    """The lines of a command file; UnsupportedFormat when it cannot be read."""
    from orcdbg.base.pipes import open_for_reading  # most commands come with -e

    remember(path)
    try:
        with open_for_reading(path) as file:
            return file.read().decode("utf-8").splitlines()
    except OSError as error:
        raise UnsupportedFormat(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnsupportedFormat(path, "not a text of commands (not UTF-8)") from error


class Batch:
    """Runs command lines and prints their answers."""

    def __init__(self, registry: Registry, debugger: Debugger, output: Output) -> None:
        self._registry = registry
        self._debugger = debugger
        self._output = output
        self._warned = 0

    def run(self, lines: Iterable[str], keep_going: bool) -> int:
        """Runs the lines; the exit status is that of the first command that failed, 0 when none did."""
        status = 0
        following = iter(lines)
        for raw in following:
            line = raw.strip()
            if line in ("py", "python"):
                from orcdbg.commands.python_blocks import rest_of_block  # a run without Python needs none of it

                line = rest_of_block(following)
            if not line or line.startswith("#"):
                continue
            try:
                failed = self._run_one(line)
            except Quit:
                break
            status = status or failed
            if failed and not keep_going:
                break
        return status

    def _run_one(self, line: str) -> int:
        try:
            command, operator, target = self._taken_apart(line)
            if operator in (">", ">>"):
                refuse_inputs(target, self._debugger.session.files)  # before the work, which takes its time
            with Waiting(command, sys.stderr):
                result = self._registry.run(self._debugger, command)
            self._deliver(command, result, operator, target)
        except OrcdbgError as error:
            self._output.failure(line, error, sys.stdout)
            return error.exit_status
        finally:
            self.show_warnings()
            sys.stdout.flush()
        return result.exit_status

    def _taken_apart(self, line: str) -> tuple[str, str, str]:
        """As `split_redirection`, which most lines need not load."""
        if ("|" not in line and ">" not in line) or "\n" in line:
            return line, "", ""  # several lines are a block of Python, whose answer goes nowhere else
        from orcdbg.commands.redirections import split_redirection

        return split_redirection(self._registry, line)

    def _deliver(self, command: str, result: Result, operator: str, target: str) -> None:
        if not operator:
            self._output.answer(command, result, sys.stdout)
            return
        plain = Output(self._output.format, False, None)
        sys.stdout.flush()
        if operator == "|":
            with subprocess.Popen(  # noqa: S602
                target, shell=True, stdin=subprocess.PIPE, text=True, errors="backslashreplace"
            ) as process:
                if process.stdin is not None:
                    _answer_into(plain, command, result, process.stdin)
        else:
            try:
                opened = open_output(target, self._debugger.session.files, append=operator == ">>")
                with io.TextIOWrapper(opened, encoding="utf-8") as file:
                    plain.answer(command, result, file)
            except OSError as error:
                raise UsageError(f"{target}: cannot be written: {error.strerror}") from error

    def show_warnings(self) -> None:
        """Prints the session's warnings that were not printed yet."""
        warnings = self._debugger.session.warnings
        for message in warnings[self._warned :]:
            warn(message)
        self._warned = len(warnings)


def _answer_into(output: Output, command: str, result: Result, pipe: IO[str]) -> None:
    """Writes to a program that may close its end early, as `head` does."""
    try:
        with pipe:
            output.answer(command, result, pipe)
    except BrokenPipeError:
        return
