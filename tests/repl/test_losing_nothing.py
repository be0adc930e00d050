"""At the prompt: no line loses a file that is read, and no paste runs before Enter is pressed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.cli.main import sample_files
from orcdbg.repl.pasting import pasted
from tests.repl.terminal import CTRL_C, CTRL_D, ENTER, Terminal

REFUSED = "is one of the files that are read"
WIDE = 400  # columns: an answer with a path of a deep temporary folder stays on one line
READER = """
from orcdbg.base.reading import FileSource
from orcdbg.commands.registry import Command
from orcdbg.commands.result import TextLines
import time

def size(debugger, arguments):
    source = FileSource(arguments.path)
    size = source.size
    source.close()
    return TextLines([str(size)])

def wait(debugger, arguments):
    print("waiting", flush=True)
    time.sleep(3)
    return TextLines(["done"])

def register(api):
    arguments = lambda parser: parser.add_argument("path")
    api.add_command(Command("size", "the size of a file", "test", size, arguments))
    api.add_command(Command("wait", "wait for three seconds", "test", wait))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the sample, a journal's stand-in and what else a session reads."""
    made = tmp_path_factory.mktemp("session")
    for file in sample_files():
        shutil.copy(file, made)
    (made / "plug_in.py").write_text(READER)
    (made / "script.orc").write_text(f"sym schedule > {made / 'script.orc'}\nsym linux_banner\n")
    (made / "other.orc").write_text("sym linux_banner\n")
    (made / "module.ko").write_bytes(b"precious")
    return made


@pytest.fixture(scope="module")
def terminal(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """orcdbg on the copies."""
    names = [str(folder / Path(file).name) for file in sample_files()]
    opened = Terminal([*names, "--plugin", str(folder / "plug_in.py")], WIDE, 50, tmp_path_factory.mktemp("home"), {})
    opened.wait("| frame 0")
    yield opened
    opened.close()


def contents(folder: Path) -> dict[str, bytes]:
    """All files."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.mark.parametrize(
    "line",
    [
        "sys > {}/snapshot.core",
        "sys >> {}/snapshot.core",
        "sys > '{}/snapshot.core'",
        "sys > {}/vmlinux.xz",
        "sys > {}/plug_in.py",
        "sys > /proc/self/cwd/../../../../../../../../{}/snapshot.core",
        "!echo lost > {}/snapshot.core",
        "history > {}/snapshot.core",
        "history -o {}/snapshot.core",
        "history -o {}/vmlinux.xz",
        "alias list > {}/snapshot.core",
        "no_such_command > {}/snapshot.core",
        "patch replay -o {}/snapshot.core",
        "run_script {}/other.orc > {}/other.orc",
        "run_script {}/script.orc",
        "size {0}/module.ko > {0}/module.ko",
        "size {0}/module.ko >> {0}/module.ko",
    ],
)
def test_no_line_loses_a_file_that_is_read(terminal: Terminal, folder: Path, line: str) -> None:
    """Whoever of orcdbg and cmd2 would write it."""
    before = contents(folder)
    terminal.run(line.replace("{}", str(folder)).replace("{0}", str(folder)), REFUSED)
    assert contents(folder) == before


def test_an_alias_and_a_macro_are_no_way_round(terminal: Terminal, folder: Path) -> None:
    """What they stand for is looked at, not what was typed."""
    before = contents(folder)
    terminal.run(f"alias create lose sys '>' {folder}/snapshot.core", "Alias 'lose' created")
    terminal.run("lose", REFUSED)
    terminal.run("macro create over sys '>' {1}", "Macro 'over' created")
    terminal.run(f"over {folder}/snapshot.core", REFUSED)
    assert contents(folder) == before


def test_a_history_that_would_replace_an_input_is_not_kept(folder: Path, tmp_path: Path) -> None:
    """Where a link has taken its place."""
    before = contents(folder)
    history = tmp_path / "state" / "orcdbg" / "history"
    history.parent.mkdir(parents=True)
    history.symlink_to(folder / "snapshot.core")
    names = [str(folder / Path(file).name) for file in sample_files()]
    terminal = Terminal(names, 160, 50, tmp_path, {})
    terminal.wait(REFUSED)
    terminal.run("sym schedule", "schedule/")
    terminal.send(CTRL_D)
    assert terminal.wait_for_end() == 0
    assert contents(folder) == before


def test_the_history_is_not_replaced(terminal: Terminal) -> None:
    """It is written at the end only."""
    terminal.run("sys > ~/state/orcdbg/history", REFUSED)


def paste(text: str) -> str:
    """What a terminal sends for pasted text: ends of lines are carriage returns, and the whole is in marks."""
    return "\x1b[200~" + text.replace("\n", "\r") + "\x1b[201~"


@pytest.mark.parametrize(
    "text", ["!touch {0}\n", "!touch {0}\n!touch {0}\n", "sym schedule\n\n!touch {0}", "\n!touch {0}\n\n"]
)
def test_a_paste_runs_nothing_before_enter(terminal: Terminal, tmp_path: Path, text: str) -> None:
    """It is shown, and waits; Ctrl-C drops all of it."""
    ran = tmp_path / "ran"
    terminal.start_over()
    terminal.send(paste(text.format(ran)))
    terminal.wait(f"!touch {ran}")
    time.sleep(0.5)
    terminal.wait(f"!touch {ran}")
    terminal.send(CTRL_C)
    terminal.wait_for_prompt()
    terminal.run("sym linux_banner", "linux_banner/")
    assert not ran.exists()


def test_enter_runs_a_paste_line_by_line(terminal: Terminal, tmp_path: Path) -> None:
    """Each line as if it had been typed, in order, and each is a line of the history."""
    terminal.start_over()
    terminal.send(paste(f"sym schedule\n!touch {tmp_path}/first\n\n!touch {tmp_path}/second\nsym linux_banner\n"))
    terminal.wait("sym linux_banner")
    assert not (tmp_path / "first").exists()
    terminal.send(ENTER)
    text = terminal.wait("linux_banner/")
    assert text.index("schedule/") < text.index("linux_banner/")
    assert (tmp_path / "first").exists() and (tmp_path / "second").exists()
    lines = terminal.run("history", "history").splitlines()
    numbered = [line.split(maxsplit=1)[1] for line in lines if line.split()[0].isdigit()]
    assert numbered[-3:] == [f"!touch {tmp_path}/first", f"!touch {tmp_path}/second", "sym linux_banner"]


def test_ctrl_c_drops_the_rest_of_a_paste(terminal: Terminal, tmp_path: Path) -> None:
    """As it does of a script."""
    terminal.start_over()
    terminal.send(paste(f"wait\n!touch {tmp_path}/ran\n") + ENTER)
    terminal.wait("waiting")
    terminal.send(CTRL_C)
    terminal.wait("orcdbg: interrupted")
    terminal.run("sym linux_banner", "linux_banner/")
    assert not (tmp_path / "ran").exists()


def test_a_paste_while_a_command_runs_waits_too(terminal: Terminal, tmp_path: Path) -> None:
    """The prompt that comes next finds it in its line."""
    terminal.start_over()
    terminal.send("wait" + ENTER)
    terminal.wait("waiting")
    terminal.send(paste(f"!touch {tmp_path}/ran\n!touch {tmp_path}/ran\n"))
    terminal.wait("done")
    terminal.wait(f"orcdbg> !touch {tmp_path}/ran")
    time.sleep(0.5)
    terminal.send(CTRL_C)
    terminal.run("sym linux_banner", "linux_banner/")
    assert not (tmp_path / "ran").exists()


def test_the_ends_of_pasted_lines_are_newlines() -> None:
    """Whatever they were; the last line has none, for it is the one that is edited."""
    assert pasted("bt\r\nps\rsys\n\r\n") == "bt\nps\nsys"
    assert pasted("bt") == "bt"
    assert pasted("\n\n") == ""
