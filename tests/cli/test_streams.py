"""Closed streams, a full disk, poor terminals, impossible names, too little memory: one line, and a status of the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orcdbg.base.exit_status import ExitStatus
from orcdbg.cli import entry
from tests.conftest import RunProgram

LONG = "n" * 300


def program(
    *words: str, shell: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The program as a shell starts it, with redirections."""
    line = f'exec "$0" -m orcdbg "$@" {shell}'
    command = ["sh", "-c", line, sys.executable, *words]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
    )


@pytest.mark.parametrize(
    ("shell", "status", "said"),
    [
        (">/dev/full", 1, "orcdbg: the answer cannot be written: No space left on device\n"),
        (">&-", 1, "orcdbg: the answer cannot be written: Bad file descriptor\n"),
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_an_answer_that_goes_nowhere_is_said(shell: str, status: int, said: str) -> None:
    """No input, or nowhere for errors, keeps no answer back."""
    found = program("demo", "-e", "sys", shell=shell)
    assert (found.returncode, found.stderr) == (status, said)
    assert ("KERNEL" in found.stdout) == (not status)


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    """A comm, or what Python prints, may have any letters."""
    found = program("demo", "-e", "py print('caf\\xe9')", environment={"PYTHONIOENCODING": "ascii"})
    assert (found.returncode, found.stdout, found.stderr) == (0, "caf\\xe9\n", "")


@pytest.mark.parametrize(
    "words",
    [(LONG, "demo"), ("demo", "--modules", LONG, "-e", "sys"), ("demo", "--btf", LONG, "-e", "sys"), ("checkup", LONG)],
    ids=["file", "modules", "btf", "checkup"],
)
def test_a_name_that_no_file_can_have_is_one_line(orcdbg_run: RunProgram, words: tuple[str, ...]) -> None:
    """The system refuses names of more than 255 characters in a way of its own."""
    status, out, err = orcdbg_run(*words)
    assert status in (ExitStatus.UNSUPPORTED, ExitStatus.USAGE)
    assert "File name too long" in out + err
    assert "Traceback" not in err


def test_a_command_that_the_system_refuses_costs_no_other(orcdbg_run: RunProgram) -> None:
    """With --keep-going the next one is answered."""
    status, out, err = orcdbg_run("demo", "--keep-going", "-e", f"mod -S {LONG}", "-e", "sys")
    assert status == ExitStatus.UNSUPPORTED
    assert "File name too long" in err
    assert "KERNEL" in out


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED, "orcdbg: interrupted\n"),
        (MemoryError(), ExitStatus.FAILED, "orcdbg: not enough memory\n"),
        (ImportError("numpy: no room"), ExitStatus.FAILED, "orcdbg: cannot be loaded: numpy: no room\n"),
    ],
)
def test_what_ends_the_loading_of_the_program_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    """The main module is not there yet that would say so."""

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise error

    monkeypatch.setitem(sys.modules, "orcdbg.cli.main", Broken())
    assert entry.start() == status
    assert capsys.readouterr().err == said


def test_a_redirection_onto_a_full_disk_is_said(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """It is the command's failure, and the others go on."""
    status, out, err = orcdbg_run(
        "demo", "--keep-going", "-e", "sys > /dev/full", "-e", f"sys > {tmp_path / LONG}", "-e", "sys"
    )
    assert status == ExitStatus.USAGE
    assert err.count("cannot be written") == 2
    assert "KERNEL" in out
