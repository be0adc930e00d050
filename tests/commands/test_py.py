"""Python at the prompt, over the sample: what is at hand, what stays, and how errors look."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.py import PythonOutput
from orcdbg.commands.python_blocks import rest_of_block
from orcdbg.commands.registry import Registry
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.conftest import RunProgram


def run(registry: Registry, debugger: Debugger, code: str) -> PythonOutput:
    """What code answers."""
    result = registry.run(debugger, f"py {code}")
    assert isinstance(result, PythonOutput)
    return result


def test_the_session_and_the_kernel_are_at_hand(registry: Registry, debugger: Debugger) -> None:
    """An expression's value is shown, and what code assigns stays."""
    assert run(registry, debugger, "len(session.tasks)").output == f"{len(debugger.session.tasks)}\n"
    name = "kernel.variable('init_task').comm.string_()"
    assert run(registry, debugger, name).output == "'swapper/0'\n"
    assert run(registry, debugger, "answer = 6 * 7").output == ""
    assert run(registry, debugger, "print(answer, \"a 'quoted' word\")").output == "42 a 'quoted' word\n"
    assert run(registry, debugger, "answer - 1").output == "41\n"
    assert run(registry, debugger, "_ + 1").output == "42\n"


def test_an_error_leads_through_the_users_own_code_alone(
    registry: Registry, debugger: Debugger, tmp_path: Path
) -> None:
    """With the output before it, and exit status 1."""
    script = tmp_path / "report.py"
    script.write_text("def half(of):\n    return of / 0\n\nprint('begun')\nhalf(session.object('task_struct', 0))\n")
    result = registry.run(debugger, f"py -x {script}")
    assert isinstance(result, PythonOutput)
    assert result.output == "begun\n"
    assert result.error is not None
    assert [(place.line, place.function, place.text) for place in result.error.places] == [
        (5, None, "half(session.object('task_struct', 0))"),
        (2, "half", "return of / 0"),
    ]
    assert result.exit_status == 1
    text = plain(lines_of(result, None))
    assert text.splitlines()[:2] == ["begun", f"! TypeError: {result.error.message}"]
    assert "site-packages" not in text


def test_an_error_of_the_kernels_memory_is_one_line(registry: Registry, debugger: Debugger) -> None:
    """And so is one of syntax; leaving ends the code alone."""
    result = run(registry, debugger, "kernel.object('task_struct', 8).pid.value_()")
    assert result.error is not None
    assert result.error.type == "BadAddress"
    result = run(registry, debugger, "for")
    assert result.error is not None
    assert result.error.type == "SyntaxError"
    assert run(registry, debugger, "exit()").error is None


def test_nothing_is_imported_from_the_current_folder(
    registry: Registry, debugger: Debugger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `python -m orcdbg` would otherwise do."""
    (tmp_path / "lies_here.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.chdir(tmp_path)
    for first in ("", tmp_path):
        monkeypatch.syspath_prepend(first)
        result = run(registry, debugger, "import lies_here")
        assert result.error is not None
        assert result.error.type == "ModuleNotFoundError"


def test_words_that_are_no_code_are_refused(registry: Registry, debugger: Debugger, tmp_path: Path) -> None:
    """Nothing, a file that is not there, and one that is no text."""
    with pytest.raises(UsageError):
        registry.run(debugger, "py")
    with pytest.raises(UnsupportedFormat):
        registry.run(debugger, f"py -x {tmp_path / 'none.py'}")
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnsupportedFormat):
        registry.run(debugger, f"py -x {binary}")


def test_several_lines_are_one_up_to_end() -> None:
    """Or up to the last line; what follows is left."""
    lines = iter(["for i in range(2):", "    print(i > 0)", "end", "ps"])
    assert rest_of_block(lines) == "py\nfor i in range(2):\n    print(i > 0)"
    assert next(lines) == "ps"
    assert rest_of_block(iter(["x = 1"])) == "py\nx = 1"


def test_scripts_and_blocks_run_from_the_command_line(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """In the order in which they are named."""
    script, commands = tmp_path / "report.py", tmp_path / "commands"
    script.write_text("print('of', session.task(1).comm)\n")
    commands.write_text("py\nif 2 > 1 | 0:\n    print('a block')\nend\n")
    status, output, errors = orcdbg_run("demo", "-x", str(script), "-x", str(commands), "-e", "py print('last')")
    assert (status, output, errors) == (0, "of init\na block\nlast\n", "")
    assert orcdbg_run("demo", "-e", "py 1 / 0", "-e", "py print('never')")[:2] == (
        1,
        "! ZeroDivisionError: division by zero\n    <py>:1  1 / 0\n",
    )
