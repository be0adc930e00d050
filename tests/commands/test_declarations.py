"""Every command is one stem: file, declaration, view."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import orcdbg.commands
import orcdbg.views
from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command, Effect, Registry, split
from orcdbg.commands.result import Nothing, PluginResult, Result
from orcdbg.commands.standard import HELP_ORDER, standard_commands
from orcdbg.views import view as views

STEMS = [module.name for module in pkgutil.iter_modules(orcdbg.commands.__path__)]
VIEWS = [module.name for module in pkgutil.iter_modules(orcdbg.views.__path__)]
COMMANDS = list(standard_commands().commands.values())


def declared_in(stem: str) -> list[Command]:
    """The commands among a file's names."""
    module = importlib.import_module(f"orcdbg.commands.{stem}")
    return [value for value in vars(module).values() if isinstance(value, Command)]


def results_in(stem: str) -> list[type[Result]]:
    """The results that a file defines."""
    module = importlib.import_module(f"orcdbg.commands.{stem}")
    values = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Result))
    return [value for value in values if value.__module__ == module.__name__ and value not in (Result, PluginResult)]


@pytest.mark.parametrize("stem", STEMS)
def test_a_file_declares_the_command_of_its_name_and_no_other(stem: str, registry: Registry) -> None:
    """One that declares another would not be found by that one's word."""
    assert [command.name for command in declared_in(stem)] in ([], [stem.rstrip("_")])
    for command in declared_in(stem):
        assert registry.find(command.name) is command
        assert all(registry.find(alias) is command for alias in command.aliases)


@pytest.mark.parametrize("stem", [stem for stem in STEMS if results_in(stem)])
def test_results_have_their_views_in_the_file_of_the_same_name(stem: str) -> None:
    """Text and JSON both."""
    importlib.import_module(f"orcdbg.views.{stem}")
    assert [result for result in results_in(stem) if result not in views._VIEWS] == []


def test_help_orders_only_commands_that_there_are(registry: Registry) -> None:
    """Each in the group that it declares; every group is one of those."""
    listed = {name: group for group, names in HELP_ORDER.items() for name in names}
    assert {name: registry.commands[name].group for name in listed} == listed
    assert {command.group for command in COMMANDS} == set(HELP_ORDER)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_examples_are_lines_that_the_command_takes(command: Command) -> None:
    """They begin with its name, and its parser reads the rest."""
    for line, shows in command.examples:
        expression = Registry([command]).expression_line(line)
        name, *words = split(line) if expression is None else (expression.command.name, *expression.words())
        assert name == command.name
        command.parser().parse_args(words)
        assert shows
    assert not command.summary.endswith(".")


def test_no_word_of_two_commands() -> None:
    """Whichever were loaded first would hide the other."""
    words = [word for command in COMMANDS for word in (command.name, *command.aliases)]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize("word", ["registry", "stacks", "../cli/main", "bt.py", "__init__", ""])
def test_names_of_other_files_are_no_commands(word: str, registry: Registry, debugger: Debugger) -> None:
    """Neither the package's other files nor a path."""
    assert registry.find(word) is None
    with pytest.raises(UsageError):
        registry.run(debugger, shlex.quote(word))


LOADED = """
import contextlib, io, json, sys
from orcdbg.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    assert main(["demo", "--no-plugins", "-e", "bt"]) == 0
print(json.dumps([name for name in sys.modules if name.startswith("orcdbg.")]))
"""


# What one stack of the sample needs and no more. Whoever adds a module to it finds that half the time of `bt` is loading them:
# a command, a reader of files or a mechanism that is not asked is imported where it is asked.
# A stack with an indirect call asks four of them: does anything point to a function, and how deep is its stack pointer?
# Two tell whether the kernel runs under Xen, and which rules hold then; one ends a program whose standard output is closed.
MODULES = 182
NOT_LOADED = (
    *(
        "orcdbg.patches.replay",
        "orcdbg.patches.mechanisms.jump_label",
        "orcdbg.patches.journal",
        "orcdbg.patches.audit",
    ),
    *("orcdbg.unwind.batch.lockstep", "orcdbg.unwind.scan", "orcdbg.formats.callframe", "orcdbg.image.source_lines"),
    *("orcdbg.emulation", "orcdbg.gdb", "orcdbg.repl", "orcdbg.trim", "orcdbg.checkup"),
)


def test_one_stack_loads_what_it_needs_and_no_other_command() -> None:
    """`bt` of one task: half of its time is loading modules, so what it does not show is not loaded."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    assert [name for name in modules if name.startswith(NOT_LOADED)] == []
    assert len(modules) < MODULES, "one stack loads more modules than before"

    loaded = {name.removeprefix("orcdbg.") for name in modules}
    commands = {name.removeprefix("commands.") for name in loaded if name.startswith("commands.")}
    shown = {name.removeprefix("views.") for name in loaded if name.startswith("views.")}
    assert commands == {
        *(
            "bt",
            "debugger",
            "lines",
            "quit",
            "registry",
            "result",
            "stacks",
            "standard",
            "task_choice",
            "usage",
            "writing",
        )
    }
    shared = ("as_text", "lines", "page", "reasons", "rows", "stack_pieces", "stack_runs", "stacks", "view", "waiting")
    assert shown == set(shared)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_says_what_it_does_besides_answering(command: Command) -> None:
    """Else nobody who asks for others, as `orcdbg mcp` does, may run it."""
    assert command.effect is not None


def _parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.Namespace, argparse.Action]]:
    """Each action of a parser and of those below it, with what that parser's defaults are."""
    defaults = argparse.Namespace(**{action.dest: action.default for action in parser._actions})
    for name, value in parser._defaults.items():
        setattr(defaults, name, value)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                for inner, found in _parsers(below):
                    setattr(inner, action.dest, name)
                    yield inner, found
        else:
            yield defaults, action


FILE_WORDS = [
    (command, given, action)
    for command in COMMANDS
    for given, action in _parsers(command.parser())
    if {"FILE", "DIR"} & set(re.findall(r"[A-Z]+", str(action.metavar)))
]


@pytest.mark.parametrize(
    ("command", "given", "action"),
    FILE_WORDS,
    ids=[f"{command.name} {action.dest}" for command, _, action in FILE_WORDS],
)
def test_a_word_that_names_a_file_is_an_effect(
    command: Command, given: argparse.Namespace, action: argparse.Action
) -> None:
    """Whatever is said to be a FILE or a DIR is read, written or run."""
    words = argparse.Namespace(**{**vars(given), action.dest: ["x"] if action.nargs == "+" else "x"})
    assert command.effect_of(words) not in (None, Effect.NONE)


def test_words_that_name_files_are_found() -> None:
    """The test above is about some."""
    assert {command.name for command, _, _ in FILE_WORDS} == {"extend", "gcore", "mod", "patch", "py", "rd", "trace"}


@pytest.mark.parametrize(
    "line",
    [
        *("gcore", "gcore -o x 94", "rd -r x linux_banner", "trace -t", "trace -t x", "trace dump -t"),
        *(
            "patch export -o x",
            "patch replay -o x",
            "extend x.py",
            "py 1",
            "python 1",
            "quit",
            "q",
            "continue",
            "detach",
        ),
        *("interrupt", "repeat -1 ps", "mod -s x", "mod -S", "mod -S x", "patch audit --modules x"),
    ],
)
def test_what_is_not_allowed_is_refused_before_it_runs(
    line: str, registry: Registry, debugger: Debugger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is there afterwards."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not run here"):
        registry.run(debugger, line, {Effect.NONE})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line", ["rd linux_banner", "bt", "foreach bt", "mod", "gcore -h", "foreach ps -h", "patch -h"]
)
def test_what_only_answers_is_run(line: str, registry: Registry, debugger: Debugger) -> None:
    """So is help on the rest."""
    assert registry.run(debugger, line, {Effect.NONE})


def test_a_command_that_does_not_say_is_not_run(debugger: Debugger) -> None:
    """An older plug-in's."""
    silent = Command("silent", "nothing", "session", lambda debugger, arguments: Nothing())
    assert isinstance(Registry([silent]).run(debugger, "silent"), Nothing)
    with pytest.raises(UsageError, match="does not say"):
        Registry([silent]).run(debugger, "silent", {Effect.NONE})
