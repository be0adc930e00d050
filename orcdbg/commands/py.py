"""py: Python over the stopped kernel."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import io
import linecache
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.base.exit_status import ExitStatus
from orcdbg.base.inputs import remember
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result

TYPED = "<py>"
MAX_SCRIPT = 16 << 20
_MOST_PLACES = 8


@dataclass(frozen=True, slots=True)
class CodePlace:
    """Where in the user's code an error came by: file or `<py>`, line, function (None outside of any), and the line's text."""

    file: str
    line: int
    function: str | None
    text: str


@dataclass(frozen=True, slots=True)
class PythonError:
    """An error that the code did not handle, and the way to it through the user's own code, outermost first."""

    type: str
    message: str
    places: Sequence[CodePlace]


@dataclass(frozen=True, slots=True)
class PythonOutput(Result):
    """What the code printed, and the error that ended it, None where none did."""

    output: str
    error: PythonError | None

    @property
    def exit_status(self) -> ExitStatus:
        """A script ends here after an error."""
        return ExitStatus.DONE if self.error is None else ExitStatus.FAILED


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-x", "--script", action="store_true", help="the word is a file with the code")
    parser.add_argument(
        "code", nargs="?", metavar="CODE|FILE", help="the code; several lines follow up to a line `end`"
    )


@contextlib.contextmanager
def _without_current_folder() -> Iterator[None]:
    """Modules are not imported from the folder that orcdbg happens to be started in, as `python -m` would."""
    before = list(sys.path)
    here = os.getcwd()  # noqa: PTH109  compared as a string
    sys.path[:] = [path for index, path in enumerate(before) if path and (index or path != here)]
    try:
        yield
    finally:
        sys.path[:] = before


def _compiled(code: str, name: str) -> tuple[CodeType, bool]:
    """The code, and whether it is an expression, whose value is shown."""
    try:
        return compile(code, name, "eval"), True
    except SyntaxError:
        return compile(code, name, "exec"), False


def _places(error: BaseException, names: frozenset[str]) -> list[CodePlace]:
    """The way to an error through the user's own code."""
    if isinstance(error, SyntaxError) and error.filename in names:
        return [CodePlace(str(error.filename), error.lineno or 1, None, (error.text or "").strip())]
    found = [
        CodePlace(frame.filename, frame.lineno or 1, None if frame.name == "<module>" else frame.name, frame.line or "")
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in names
    ]
    return found[-_MOST_PLACES:]


def run_code(debugger: Debugger, code: str, name: str) -> PythonOutput:
    """Runs code with the session's names, which it keeps for the next run.

    Args:
        debugger: whose session.
        code: an expression, whose value is printed unless it is None, or statements.
        name: of the file, `TYPED` for what was typed.
    """
    names = debugger.python_names
    # Lines of what was typed are in no file where tracebacks could find them.
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    printed = io.StringIO()
    error = None
    with contextlib.redirect_stdout(printed), _without_current_folder():
        try:
            compiled, is_expression = _compiled(code, name)
            if is_expression:
                value = eval(compiled, names)  # noqa: S307  the user's own code is what `py` is for
                if value is not None:
                    names["_"] = value
                    print(repr(value))
            else:
                exec(compiled, names)  # noqa: S102
        except SystemExit:
            pass  # exit() ends the code, not the session
        except Exception as raised:  # noqa: BLE001  whatever the user's code raises is its answer
            error = PythonError(type(raised).__name__, str(raised), _places(raised, frozenset((name, TYPED))))
    return PythonOutput(printed.getvalue(), error)


def _script(path: str) -> str:
    """A script's text; UnsupportedFormat where it cannot be read."""
    remember(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_SCRIPT + 1)
    except OSError as error:
        raise UnsupportedFormat(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnsupportedFormat(path, "not Python (not UTF-8)") from error
    if len(text) > MAX_SCRIPT:
        raise UnsupportedFormat(path, f"longer than {MAX_SCRIPT} characters")
    return text


def new_names(debugger: Debugger) -> dict[str, object]:
    """The names that code begins with."""
    return {
        "__name__": "__main__",
        "__builtins__": builtins,
        "session": debugger.session,
        "kernel": debugger.session.program,
        "debugger": debugger,
    }


@command(
    "py",
    summary="run Python with `session` and `kernel` at hand",
    group="session",
    effect=Effect.RUNS_CODE,
    arguments=_arguments,
    aliases=("python",),
    takes_expression=True,
    examples=(
        ("py len(session.tasks)", "an expression, whose value is shown"),
        ("py print(kernel.variable('init_task').comm.string_())", "a typed value of the kernel"),
        ("py", "several lines, up to a line `end`"),
        ("py -x report.py", "a script"),
    ),
)
def py(debugger: Debugger, arguments: argparse.Namespace) -> PythonOutput:
    """Answers with what the code printed, and how it failed if it did."""
    if arguments.code is None:
        raise UsageError("py takes code", "several lines: `py`, the lines, then `end`; a script: py -x FILE")
    if arguments.script:
        path = arguments.code.strip("'\"")
        return run_code(debugger, _script(path), path)
    return run_code(debugger, arguments.code, TYPED)
