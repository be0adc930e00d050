"""Words and files that nobody means: one line, an exit status of the contract, and no waiting."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.conftest import RunProgram


@pytest.mark.parametrize("option", ["--width", "--kaslr", "--phys-base"])
def test_a_number_that_is_none_is_said_in_words(orcdbg_run: RunProgram, option: str) -> None:
    """And not in those of the program's insides."""
    status, out, err = orcdbg_run("demo", option, "ten", "-e", "bt")
    assert (status, out) == (2, "")
    assert err.splitlines()[0] == f"orcdbg: argument {option}: not a number: 'ten'"


def test_a_journal_that_is_not_there_is_said_so(orcdbg_run: RunProgram) -> None:
    """It is missing, which is another thing than being a folder."""
    status, _, err = orcdbg_run("demo", "--patches", "/nonexistent", "-e", "bt")
    assert (status, err) == (3, "orcdbg: /nonexistent: cannot be read: No such file or directory\n")
    assert orcdbg_run("demo", "--patches", "/", "-e", "bt")[2] == "orcdbg: /: not a regular file\n"


def test_a_pipe_that_holds_no_snapshot_is_read_once(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """A second look would wait for a writer for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"words\n",))
    writer.start()
    status, out, err = orcdbg_run(str(pipe), "-e", "bt")
    writer.join()
    assert (status, out) == (3, "")
    assert err.startswith(f"orcdbg: {pipe}: neither a vmlinux nor a snapshot of any known format")


@pytest.mark.parametrize("words", [["checkup"], ["orc", "dump"], ["trim", "--image", "-o", "x"]])
def test_nobody_waits_for_a_writer_of_a_pipe(orcdbg_run: RunProgram, tmp_path: Path, words: list[str]) -> None:
    """What must look at a file twice, or at an image, says that this is none."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    status, out, err = orcdbg_run(*words, str(pipe))
    assert status == 3
    assert str(pipe) in out + err
