"""What is stepped is what is selected, and hints name what works."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import orcdbg
from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.commands.context import Context
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.steps import Steps
from orcdbg.commands.stops import Stops
from orcdbg.emulation.start import UnknownRegisters
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.conftest import RunProgram


def test_step_begins_anew_at_another_task(debugger: Debugger, registry: Registry) -> None:
    """Also back at the first one: there is one emulation, of the selected task and frame."""
    registry.run(debugger, "step 1")
    registry.run(debugger, "set 1")
    with pytest.raises(UnknownRegisters, match="of the selected frame"):
        registry.run(debugger, "step")
    other = registry.run(debugger, "step 0 --zero")
    assert isinstance(other, Steps)
    assert other.source == "frame 0 of task 1"
    registry.run(debugger, "set 135")
    again = registry.run(debugger, "step 0")
    assert isinstance(again, Steps)
    assert (again.source, again.position) == ("frame 0 of task 135", 0)


def test_step_begins_anew_at_another_frame(debugger: Debugger, registry: Registry) -> None:
    """`up` and `down` select, too."""
    registry.run(debugger, "step 1")
    registry.run(debugger, "up")
    with pytest.raises(OrcdbgError, match="nothing was stepped yet from frame 1 of task 135"):
        registry.run(debugger, "rsi")
    steps = registry.run(debugger, "step 0 --zero")
    assert isinstance(steps, Steps)
    assert steps.source == "frame 1 of task 135"


def test_context_is_of_the_selected_task(debugger: Debugger, registry: Registry) -> None:
    """A sleeping task's is refused, with a line that works; after that it shows that task."""
    registry.run(debugger, "step 1")
    registry.run(debugger, "set 1")
    with pytest.raises(UnknownRegisters) as refused:
        registry.run(debugger, "context")
    for line in re.findall(r"`([^`]+)`", (refused.value.hint or "").replace("VALUE", "7")):
        registry.run(debugger, line)
    context = registry.run(debugger, "context")
    assert isinstance(context, Context)
    assert context.trace.task == debugger.task.address


def test_stops_need_no_registers_and_hold_for_every_task(debugger: Debugger, registry: Registry) -> None:
    """A sleeping task has breakpoints listed, set and deleted; an emulation that begins later has them."""
    registry.run(debugger, "set 1")
    assert registry.run(debugger, "break") == Stops([])
    registry.run(debugger, "break schedule")
    both = registry.run(debugger, "watch init_task 8")
    assert isinstance(both, Stops)
    assert [(size, name) for _, _, size, name in both.stops] == [(0, "schedule+0x0/0x90"), (8, both.stops[1][3])]
    registry.run(debugger, "set 135")
    registry.run(debugger, "step 0")
    assert registry.run(debugger, "break") == both
    assert debugger.emulation is not None
    assert debugger.emulation.motions.breakpoints == {debugger.address("schedule")}
    registry.run(debugger, "delete")
    assert debugger.emulation.motions.breakpoints == set()


def test_continue_on_a_snapshot_says_what_runs(debugger: Debugger, registry: Registry) -> None:
    """An emulation, of which task and with which CPU's data; with nowhere to stop it is refused."""
    with pytest.raises(UsageError, match="nowhere to stop"):
        registry.run(debugger, "continue")
    registry.run(debugger, "break schedule")
    with pytest.raises(UsageError, match="for a live guest"):
        registry.run(debugger, "continue --for 1")
    result = registry.run(debugger, "continue")
    first = plain(lines_of(result, None)).splitlines()[0]
    assert first == "A snapshot does not run: this is an emulation of task 135 cat, with the data of CPU 0."


def _quoted_lines() -> Iterator[tuple[str, str]]:
    """Every line in backticks in the text of the commands, and the file that it is in; braces stand for values."""
    package = Path(orcdbg.__file__).parent
    for path in sorted([*package.glob("commands/*.py"), *package.glob("emulation/*.py"), *package.glob("target/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            for line in re.findall(r"`([^`\n]+)`", text):
                yield path.name, line


def test_no_hint_names_an_option_that_its_command_refuses(registry: Registry) -> None:
    """Each option in a line that some text of a command quotes is known to the command that the line begins with."""
    checked = 0
    for name, line in _quoted_lines():
        try:
            first, *words = shlex.split(line)
        except ValueError:
            continue  # half a line of another part of a sentence
        command = registry.find(first)
        if command is None or line == "python -m":  # that one is of a shell
            continue
        known = {flag for action in command.parser()._actions for flag in action.option_strings}
        for action in command.parser()._actions:
            if isinstance(action, argparse._SubParsersAction):
                known |= {flag for inner in action.choices.values() for flag in inner._option_string_actions}
        for word in words:
            if re.fullmatch(r"--?[A-Za-z][\w-]*", word) and first != "foreach":
                assert word in known, f"{name}: `{line}`"
                checked += 1
    assert checked > 20


@pytest.mark.parametrize("line", ["context", "next", "until schedule", "finish", "step"])
def test_the_hint_of_unknown_registers_is_a_line_that_works(orcdbg_run: RunProgram, line: str) -> None:
    """Whichever command it was that needed them."""
    _, _, err = orcdbg_run("demo", "-e", "set 1", "-e", line)
    hinted = re.findall(r"`([^`]+)`", err.splitlines()[1])
    assert hinted == ["step 0 --zero", "step --zero --args rax=VALUE"]
    assert orcdbg_run("demo", "-e", "set 1", "-e", hinted[0])[0] == 0
