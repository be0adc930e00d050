"""At the prompt: no line loses a file that is read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.cli.main import sample_files
from tests.repl.terminal import CTRL_D, Terminal

REFUSED = "is one of the files that are read"
READER = """
from orcdbg.base.reading import FileSource
from orcdbg.commands.registry import Command
from orcdbg.commands.results import Text

def size(debugger, arguments):
    source = FileSource(arguments.path)
    size = source.size
    source.close()
    return Text([str(size)])

def register(api):
    arguments = lambda parser: parser.add_argument("path")
    api.add_command(Command("size", "the size of a file", "test", size, arguments))
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
    opened = Terminal([*names, "--plugin", str(folder / "plug_in.py")], 160, 50, tmp_path_factory.mktemp("home"), {})
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
