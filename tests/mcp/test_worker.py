"""The process that has a snapshot, asked as the server asks it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, Registry
from orcdbg.mcp import worker as workers
from orcdbg.mcp.messages import Form, Opening, Question, Reply, encode, parse_opening, parse_question, parse_reply
from orcdbg.mcp.worker import SnapshotWorker

PLUGIN = """
import os, socket, subprocess
from orcdbg.plugin import Answer, Effect, OrcdbgError, command

TRIED = {
    "write": lambda: open("written", "w"),
    "append": lambda: open("/dev/null", "ab"),
    "read": lambda: open("/etc/passwd"),
    "link": lambda: open("link"),
    "program": lambda: subprocess.run(["true"]),
    "shell": lambda: os.system("true"),
    "socket": lambda: socket.socket(),
    "rename": lambda: os.rename("kept", "renamed"),
    "remove": lambda: os.remove("kept"),
    "folder": lambda: os.mkdir("made"),
    "descriptor": lambda: os.open("written", os.O_WRONLY | os.O_CREAT),
}

@command("tries", summary="do what is not allowed", group="session", effect=Effect.NONE)
def tries(debugger, arguments):
    done = []
    for name, do in TRIED.items():
        try:
            do()
        except PermissionError:
            continue
        done.append(name)
    return Answer(["done: " + " ".join(done)], done)

def register(api):
    api.add_command(tries)
"""


def ask(folder: Path, opening: Opening, *questions: Question) -> list[Reply]:
    """What a process says to these."""
    said = encode(opening) + b"".join([encode(question) for question in questions])
    command = [sys.executable, "-P", "-m", "orcdbg.cli.mcp_worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(said)
        process.stdin.flush()
        replies = [parse_reply(process.stdout.readline()) for _ in range(1 + len(questions))]
        process.stdin.close()
        assert process.wait(20) == 0
        return replies


def test_a_command_that_declares_too_little_still_does_nothing_else(tmp_path: Path) -> None:
    """No file is written, renamed, removed or read elsewhere, not by a link either; no program runs, and nothing is sent."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "kept").touch()
    (folder / "link").symlink_to("/etc/passwd")
    opening = Opening(["demo"], plugins=[str(plugin)], readable=[str(folder)])
    opened, tried, frames = ask(folder, opening, Question("tries", Form.TEXT), Question("bt", Form.TEXT))
    assert (opened.ok, tried.text) == (True, "done:\n")
    assert "lock_is_held_type" in frames.text
    assert {path.name for path in folder.iterdir()} == {"kept", "link"}


@pytest.fixture
def worker(registry: Registry, debugger: Debugger) -> SnapshotWorker:
    """One in this process, without the net."""
    return SnapshotWorker(registry, debugger)


def test_long_answers_are_cut_while_they_are_made() -> None:
    """Nobody makes what is not kept."""

    def pieces() -> Iterator[str]:
        yield from ("12345678", "90123")
        raise AssertionError("more was made than is kept")

    assert workers._collected(pieces(), 10) == ("1234567890", True)
    assert workers._collected(iter(["12345", "67890"]), 10) == ("1234567890", False)


def test_lines_are_one_command(worker: SnapshotWorker) -> None:
    """Several lines, other control bytes and endless lines are none."""
    for line in (
        "bt\nbt",
        "py\n1",
        "bt \x1b",
        "p " + "1+" * 4000 + "1",
        "",
        "!",
        "bt|cat",
        "bt >x",
        "bt > x",
        "p 1 | cat",
    ):
        reply = worker.answer(Question(line, Form.TEXT))
        assert (line, reply.ok, reply.status) == (line, False, 2)


def test_an_error_is_an_answer_in_either_form(worker: SnapshotWorker) -> None:
    """The contract's line, or that of a terminal."""
    text, json = (worker.answer(Question("bt 99999", form)) for form in (Form.TEXT, Form.JSON))
    assert text.text.startswith("orcdbg: bt: no such task: 99999")
    assert json.text.startswith('{"schema": 1, "command": "bt 99999", "ok": false')
    assert (text.status, json.status) == (1, 1)


def test_whatever_a_command_raises_is_an_error() -> None:
    """The process lives on."""

    def broken() -> Reply:
        raise SystemExit(3)

    interrupts = workers._Interrupts.__new__(workers._Interrupts)
    reply = workers._guarded(interrupts, Question("x", Form.TEXT), broken)
    assert (reply.ok, reply.text) == (False, "orcdbg: x: an error within orcdbg: SystemExit\n")


def test_messages_survive_the_way() -> None:
    """Each kind, with characters of more than one byte."""
    opening = Opening(["\u00e4"], ["m"], ["s"], "b", ["d"], ["p"], ["r"])
    question, reply = Question("\u00e4", Form.JSON), Reply(False, 5, "\x1b\n\U0001f600", True, ["w"], True)
    assert parse_opening(encode(opening)) == opening
    assert parse_question(encode(question)) == question
    assert parse_reply(encode(reply)) == reply


def test_only_what_says_that_it_answers_is_allowed() -> None:
    """And nothing else."""
    assert {Effect.NONE} == workers.ALLOWED
