"""The shell without a terminal: what happens to a line when things go wrong."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Container, Iterator
from pathlib import Path

import pytest
from cmd2 import Cmd

from orcdbg.base.errors import Corrupt
from orcdbg.cli.output import Output
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Command, Registry
from orcdbg.commands.result import Nothing, Result, TextLines
from orcdbg.commands.sys import System
from orcdbg.repl.completion import Completer
from orcdbg.repl.shell import Shell
from orcdbg.repl.shellwords import WORDS, add_shell_words


@pytest.fixture
def shell(debugger: Debugger, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A shell over the sample whose answers go into a string."""

    def fail(debugger: Debugger, arguments: object) -> Result:
        raise ValueError("a \x1b bug")

    def warn(debugger: Debugger, arguments: object) -> Result:
        debugger.session.warnings.append("found on the way")
        return Nothing()

    registry.add(Command("buggy", "fails", "test", fail))
    registry.add(Command("warning", "warns", "test", warn))
    registry.add(Command("two.words", "has a name of its own", "test", lambda d, a: TextLines(["of its own"])))
    add_shell_words(registry)
    before = list(debugger.session.warnings)
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    yield Shell(registry, debugger, Output("text", False, None), "")
    debugger.session.warnings[:] = before


def run(shell: Shell, line: str) -> tuple[bool, str]:
    """Whether the line was the last one, and what it printed."""
    assert isinstance(shell.stdout, io.StringIO)
    shell.stdout.seek(0)
    shell.stdout.truncate()
    stop = shell.onecmd_plus_hooks(line)
    return stop, shell.stdout.getvalue()


def test_every_command_of_the_registry_is_one_of_the_shells(shell: Shell, registry: Registry) -> None:
    """And besides them only the words that help names."""
    known = set(registry.words) - {"?"}
    assert set(shell.get_all_commands()) == known | {"_eof"}
    assert {word.name for word in WORDS} <= known
    assert run(shell, "two.words") == (False, "of its own\n")


def test_a_bug_in_a_command_is_a_line_and_not_the_end(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """Who wants the traceback asks with --debug."""
    assert run(shell, "buggy") == (False, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["orcdbg: ValueError: a \\x1b bug", "hint: orcdbg --debug shows where"]


def test_with_debug_there_is_a_traceback(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """Of bugs, and of refusals as well."""
    shell.debug = True
    run(shell, "buggy")
    run(shell, "frame 99")
    err = capsys.readouterr().err
    assert err.count("Traceback") == 2
    assert "orcdbg: frame: no such frame: 99" in err


def test_a_warning_is_printed_once(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """After the command that brought it up."""
    run(shell, "mod")
    capsys.readouterr()
    run(shell, "warning")
    run(shell, "mod")
    assert capsys.readouterr().err == "orcdbg: warning: found on the way\n"


@pytest.mark.parametrize("word", ["q", "quit", "exit", "_eof"])
def test_some_words_leave(shell: Shell, word: str) -> None:
    """So do Ctrl-D, which is the last of them, and their aliases."""
    assert run(shell, word)[0]


def test_the_prompt_follows_the_frame(shell: Shell, debugger: Debugger) -> None:
    """Also when the line that changed it was redirected."""
    run(shell, "frame 6")
    assert shell.prompt == "(frame 6) orcdbg> "
    run(shell, f"set {debugger.task.pid} > /dev/null")
    assert shell.prompt == "orcdbg> "


def test_answers_can_be_json_at_the_prompt_too(
    debugger: Debugger, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors among them, and without a banner in between."""
    monkeypatch.setattr("sys.stdout", io.StringIO())
    shell = Shell(registry, debugger, Output("json", False, None), "")
    shell.preloop()
    assert isinstance(shell.stdout, io.StringIO)
    assert shell.stdout.getvalue() == ""
    kinds = [json.loads(run(shell, line)[1])["ok"] for line in ("frobnicate", "sym linux_banner")]
    assert kinds == [False, True]


def test_a_script_runs_and_may_leave(shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Comments are no commands, and an error does not end it."""
    script = tmp_path / "today.orc"
    script.write_text("# what we look at\nfrobnicate\nsym linux_banner\nquit\nmod\n")
    stop, out = run(shell, f"run_script {script}")
    assert stop
    assert len(out.splitlines()) == 1 and "linux_banner/" in out
    assert "no such command: frobnicate" in capsys.readouterr().err


def test_a_banner_that_fails_keeps_nobody_out(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken snapshot has memory that can be read."""

    def broken(debugger: Debugger, keys: Container[str]) -> System:
        raise Corrupt("nr_cpu_ids is 0")

    monkeypatch.setattr("orcdbg.repl.shell.facts_of", broken)
    shell.preloop()
    assert shell.is_open
    assert capsys.readouterr().err == "orcdbg: sys: nr_cpu_ids is 0\n"


def test_an_error_while_completing_offers_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command will say what is wrong."""

    def broken(completer: Completer, words: list[str], prefix: str) -> list[object]:
        raise Corrupt("no tasks")

    assert [item.text for item in shell.complete("13", "bt 13", 3, 5)] == ["13", "135"]
    monkeypatch.setattr(Completer, "later_word", broken)
    assert not shell.complete("13", "bt 13", 3, 5)


def test_an_alias_is_completed_like_what_it_stands_for(shell: Shell) -> None:
    """And stands among the commands."""
    run(shell, "alias create stack bt")
    assert [item.text for item in shell.complete("stac", "stac", 0, 4)] == ["stack"]
    assert [item.text for item in shell.complete("--wh", "stack --wh", 6, 10)] == ["--why"]


def test_after_a_pipe_files_and_programs_are_completed(shell: Shell, tmp_path: Path) -> None:
    """By cmd2."""
    (tmp_path / "answers.txt").write_text("")
    line = f"bt > {tmp_path}/answ"
    found = shell.complete(f"{tmp_path}/answ", line, 5, len(line))
    assert [item.text for item in found] == [f"{tmp_path}/answers.txt"]


def test_cmd2_keeps_what_the_shell_builds_on() -> None:
    """Where a new cmd2 renames one of these, this test says so before a user does."""
    for name in ("do_alias", "do_macro", "do_history", "do_run_script", "do_shell", "do__eof", "tokens_for_completion"):
        assert callable(getattr(Cmd, name))


class Interrupted:
    """An object that is being freed when Ctrl-C is pressed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_while_an_object_is_freed_is_not_lost(shell: Shell, registry: Registry) -> None:
    """Python prints what is raised in a destructor and goes on; the command must end all the same."""
    ended = list[str]()

    def linger(debugger: Debugger, arguments: object) -> Result:
        freed = Interrupted()
        ended.append("freed")
        del freed
        time.sleep(10)
        return TextLines(["not interrupted"])

    registry.add(Command("linger", "waits", "test", linger))
    before = signal.signal(signal.SIGINT, shell.sigint_handler)
    try:
        begun = time.monotonic()
        _, printed = run(shell, "linger")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["freed"]
    assert "not interrupted" not in printed
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("p (3 > 2)", "$1 = 1\n"),
        ("p 3>2", "$1 = 1\n"),
        ("p 1|2", "$1 = 3\n"),
        ("p 3 >= 2", "$1 = 1\n"),
        ("p 0 || 1", "$1 = 1\n"),
        ("p '>'", "$1 = 62 '>'\n"),
        ("p &init_task->comm", "$1 = (char (*)[16]) 0x"),
        ("p init_task.pid>made", ""),
        ("p/x 17", "$1 = 0x11\n"),
        ("print/x 17", "$1 = 0x11\n"),
        ("p*&init_task.pid", "$1 = 0\n"),
        ("p(1)", "$1 = 1\n"),
        ("x/s &linux_banner", "0xffffffff"),
        ("p 3 > 2", ""),
        ("p 3 >", ""),
        ("p 1 | 2", ""),
    ],
)
def test_an_expression_is_no_file_at_the_prompt(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, answer: str
) -> None:
    """The line is parsed for its command first; what is refused prints no answer."""
    monkeypatch.chdir(tmp_path)
    printed = run(shell, line)[1]
    assert printed.startswith(answer)
    assert bool(printed) is bool(answer)
    assert list(tmp_path.iterdir()) == []


def test_an_expressions_answer_goes_where_the_line_says(shell: Shell, tmp_path: Path) -> None:
    """Into a file, or behind what is in it; an alias for the command changes nothing."""
    target = tmp_path / "an answer"
    assert run(shell, f"p init_task.comm > '{target}'") == (False, "")
    assert run(shell, f'p (3 > 2) >> "{target}"') == (False, "")
    assert target.read_text() == '$1 = "swapper/0"\n$2 = 1\n'
    run(shell, "alias create show p")
    assert run(shell, "show (3 > 2)") == (False, "$3 = 1\n")


def test_a_line_may_begin_with_a_structure_at_the_prompt(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name, or a star before it, is no word of the shell's; pipes and redirections are as behind any command."""
    whole = run(shell, "struct list_head")[1]
    assert whole.startswith("struct list_head {")
    assert run(shell, "*list_head")[1] == run(shell, "list_head")[1] == whole
    assert run(shell, "task_struct.pid init_task -x")[1] == run(shell, "struct -x task_struct.pid init_task")[1]
    assert run(shell, f"*list_head > {tmp_path}/out") == (False, "")
    assert (tmp_path / "out").read_text() == whole
    assert run(shell, "no_such_structure")[1] == ""
    assert "no such command: no_such_structure" in capsys.readouterr().err


def test_displays_and_repeats_at_the_prompt(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """A step shows what is displayed; a command cannot be repeated over what does not change."""
    assert run(shell, "display/x $rsp")[1].startswith("1: /x $rsp = (void *) 0x")
    assert "\n1: /x $rsp = (void *) 0x" in run(shell, "step --frame 6 --zero")[1]
    assert run(shell, "repeat -1 p 1")[1] == ""
    assert "nothing changes in a snapshot" in capsys.readouterr().err
