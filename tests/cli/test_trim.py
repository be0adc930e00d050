"""orcdbg trim: a small snapshot that answers as the whole one does, and holds nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orcdbg.cli.main import sample_files
from orcdbg.image.vmlinux import open_image
from tests.conftest import RunProgram

COMMANDS = ("bt -a", "foreach bt", "ps", "mod", "log", "patch check", "orc schedule", "regs")


def answers(run: RunProgram, *files: str) -> list[Any]:
    """What the commands answer, as JSON."""
    words = [word for command in COMMANDS for word in ("-e", command)]
    _, out, _ = run(*files, "--format", "json", "--keep-going", *words)
    # The sample is itself a part of a machine: what is absent from it is of course not kept either.
    return [json.loads(line.replace("(trimmed)", "(absent)")) for line in out.splitlines()]


@pytest.mark.parametrize("options", [[], ["--zstd"], ["--text", "--all-stacks"]])
def test_a_trimmed_snapshot_answers_as_the_whole_one(
    orcdbg_run: RunProgram, tmp_path: Path, options: list[str]
) -> None:
    """Stacks, tasks, log and corrected rows are the same, from a file that is smaller."""
    vmlinux, whole = sample_files()
    small = str(tmp_path / "small")
    status, out, err = orcdbg_run("trim", whole, vmlinux, "-o", small, *options)
    assert (status, err) == (0, "")
    assert out.startswith(f"{small}: {Path(small).stat().st_size} bytes")
    assert Path(small).stat().st_size < Path(whole).stat().st_size / (1 if "--text" in options else 2)
    assert answers(orcdbg_run, vmlinux, small) == answers(orcdbg_run, vmlinux, whole)
    assert list(tmp_path.iterdir()) == [Path(small)]


def test_stacks_of_other_tasks_are_left_out(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """--tasks keeps the stacks of the tasks named, and their lists stay whole."""
    vmlinux, whole = sample_files()
    small = str(tmp_path / "small")
    assert orcdbg_run("trim", vmlinux, whole, "-o", small, "--tasks", "1,2")[0] == 0
    _, out, _ = orcdbg_run(vmlinux, small, "--format", "json", "-e", "ps", "-e", "bt 2", "-e", "bt 3")
    tasks, kept, dropped = (json.loads(line)["result"] for line in out.splitlines())
    assert len(tasks["tasks"]) > 3
    assert kept["stacks"][0]["end"] == "kthread"
    assert dropped["stacks"][0]["end"] == "stopped"


def test_a_trimmed_image_serves_as_the_whole_one(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Sections keep their numbers; stacks and the account of patched text are the same."""
    vmlinux, whole = sample_files()
    small = str(tmp_path / "vmlinux")
    assert orcdbg_run("trim", "--image", vmlinux, "-o", small)[0] == 0
    assert answers(orcdbg_run, small, whole) == answers(orcdbg_run, vmlinux, whole)
    pairs = zip(open_image(small).elf.sections, open_image(vmlinux).elf.sections, strict=True)
    assert all(mine.name in ("", theirs.name) and mine.address in (0, theirs.address) for mine, theirs in pairs)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["trim"], 2),
        (["trim", "nothing", "-o", "x"], 3),
        (["trim", "--image", "a", "b", "-o", "x"], 2),
        (["trim", *sample_files(), "-o", "/nonexistent/x"], 2),
        (["trim", *sample_files(), "-o", "x", "--tasks", "init"], 2),
        (["trim", *sample_files(), "-o", "x", "--tasks", "4000"], 1),
    ],
)
def test_what_cannot_be_done_is_said(orcdbg_run: RunProgram, words: list[str], status: int) -> None:
    """One line, an exit status of the contract, and no file."""
    found, out, err = orcdbg_run(*words)
    assert (found, out) == (status, "")
    assert err.startswith("orcdbg: ")
    assert not Path("x").exists()
