"""orcdbg trim: a small snapshot that answers as the whole one does, and holds nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import AddressSpace
from orcdbg.cli.main import sample_files
from orcdbg.commands.trim import TrimChoice, write_trimmed
from orcdbg.image.vmlinux import open_image
from orcdbg.snapshot.readers.choice import open_paths
from orcdbg.snapshot.readers.kept import Recorder
from orcdbg.target.session import Session
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


class Noise:
    """A machine whose memory outside some ranges is other than it was."""

    def __init__(self, memory: AddressSpace, ranges: list[tuple[int, int]]) -> None:
        self._memory, self._ranges = memory, ranges

    def read(self, address: int, size: int) -> bytes:
        """Memory inside the ranges, noise elsewhere."""
        data = bytearray(self._memory.read(address, size))
        noise = bytearray(b"\xa5" * size)
        for start, end in self._ranges:
            low, high = max(start, address), min(end, address + size)
            if low < high:
                noise[low - address : high - address] = data[low - address : high - address]
        return bytes(noise)


def _write(session: Session, recorder: Recorder, memory: AddressSpace, path: Path) -> list[tuple[int, int]]:
    write_trimmed(session, recorder, memory, TrimChoice(None, False, False), str(path))
    return recorder.ranges()


def test_nothing_but_what_was_kept_has_any_influence_on_the_file(tmp_path: Path) -> None:
    """All memory that was not kept may be anything, keys and user data included: the file is the same, byte for byte."""
    vmlinux, whole = sample_files()
    snapshot, image = open_paths(whole), open_image(vmlinux)
    recorder = Recorder(snapshot.physical)
    ranges = _write(Session(image, replace(snapshot, physical=recorder)), recorder, snapshot.physical, tmp_path / "one")
    memory = Noise(snapshot.physical, ranges)
    again = Recorder(memory)
    assert _write(Session(image, replace(snapshot, physical=again)), again, memory, tmp_path / "two") == ranges
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


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


def test_snapshots_without_notes_are_refused(tmp_path: Path) -> None:
    """There is nothing to say where the kernel is."""
    vmlinux, whole = sample_files()
    snapshot = open_paths(whole)
    recorder = Recorder(snapshot.physical)
    session = Session(open_image(vmlinux), replace(snapshot, physical=recorder, notes=()))
    with pytest.raises(OrcdbgError, match="no ELF notes"):
        write_trimmed(session, recorder, snapshot.physical, TrimChoice(None, False, False), str(tmp_path / "x"))
