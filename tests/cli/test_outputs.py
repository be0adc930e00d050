"""Whatever writes a file: no file that is read is lost, under any of its names, and the exit status says so."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orcdbg.base.reading import FileSource
from orcdbg.cli.main import sample_files
from orcdbg.formats.elf import PT_LOAD, ElfFile
from orcdbg.target.session import Session
from tests.build.kdump import Kdump
from tests.build.memory_files import vmss
from tests.conftest import RunProgram

IMAGE, CORE = sample_files()
REFUSED = "is one of the files that are read, and is not replaced"


def digest(path: str | Path) -> str:
    """What tells whether a file is what it was."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Copies of the sample's image and snapshot, to be lost if orcdbg is wrong."""
    image, core = tmp_path / "vmlinux.xz", tmp_path / "snapshot.core"
    shutil.copy(IMAGE, image)
    shutil.copy(CORE, core)
    return str(image), str(core)


def check_refused(outcome: tuple[int, str, str], path: str | Path, before: str) -> None:
    """One line, the status of wrong usage, no answer, and the file as it was."""
    status, out, err = outcome
    lines = [line for line in err.splitlines() if not line.startswith("orcdbg: warning:")]
    assert (status, out) == (2, "")
    assert REFUSED in lines[0] and lines[1:] == ["hint: name another file"]
    assert digest(path) == before


@pytest.mark.parametrize("operator", [">", ">>"])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", ["itself", "symbolic link", "hard link", "relative", "descriptor"])
def test_a_redirection_does_not_reach_an_input_by_any_name(
    orcdbg_run: RunProgram,
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operator: str,
    index: int,
    name: str,
) -> None:
    """Image or snapshot, replaced or appended to."""
    path, before = files[index], digest(files[index])
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    descriptor = os.open(path, os.O_RDONLY)
    if name == "symbolic link":
        other.symlink_to(path)
    elif name == "hard link":
        os.link(path, other)
    target = {
        "itself": path,
        "relative": f"../{tmp_path.name}/{Path(path).name}",
        "descriptor": f"/proc/self/fd/{descriptor}",
    }.get(name, str(other))
    try:
        check_refused(orcdbg_run(*files, "-e", f"sys {operator} {target}"), path, before)
    finally:
        os.close(descriptor)


def test_a_script_that_is_yet_to_be_run_is_an_input(
    orcdbg_run: RunProgram, files: tuple[str, str], tmp_path: Path
) -> None:
    """And so is the one that runs."""
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text("sym schedule\n")
    for target in (first, second):
        first.write_text(f"sys > {target}\n")
        check_refused(orcdbg_run(*files, "-x", str(first), "-x", str(second)), target, digest(target))


def test_a_script_from_standard_input_is_an_input(files: tuple[str, str], tmp_path: Path) -> None:
    """It is open, and its name is not known."""
    script = tmp_path / "script"
    script.write_text(f"sys > {script}\nsym schedule\n")
    before = digest(script)
    with script.open("rb") as stream:
        words = [sys.executable, "-m", "orcdbg", *files]
        done = subprocess.run(words, stdin=stream, capture_output=True, text=True, timeout=60)
    check_refused((done.returncode, done.stdout, done.stderr), script, before)


def test_a_journal_and_a_plug_in_are_inputs(orcdbg_run: RunProgram, files: tuple[str, str], tmp_path: Path) -> None:
    """Of a journal the recorded patches of a boot may be the only copy."""
    journal, plug_in = tmp_path / "journal", tmp_path / "plug_in.py"
    plug_in.write_text("def register(api):\n    pass\n")
    assert orcdbg_run(*files, "-e", f"patch export -o {journal}")[0] == 0
    commands = ["sys > {}", "sys >> {}", "patch export -o {}", "patch replay -o {}"]
    before = digest(journal), digest(plug_in)
    words = [word for path in (journal, plug_in) for command in commands for word in ("-e", command.format(path))]
    status, out, err = orcdbg_run(*files, "--patches", str(journal), "--plugin", str(plug_in), "--keep-going", *words)
    assert (status, out, err.count(REFUSED)) == (2, "", 2 * len(commands))
    assert (digest(journal), digest(plug_in)) == before


def test_a_debug_file_is_an_input_before_it_is_read(
    orcdbg_run: RunProgram, sample: Session, files: tuple[str, str], tmp_path: Path
) -> None:
    """The next command may need it."""
    build_id = sample.image.build_id
    assert build_id is not None
    debug = tmp_path / "debug" / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    debug.parent.mkdir(parents=True)
    debug.write_bytes(b"precious")
    outcome = orcdbg_run(*files, "--debug-dir", str(tmp_path / "debug"), "-e", f"sys > {debug}")
    check_refused(outcome, debug, digest(debug))


READER = """
from orcdbg.base.reading import FileSource
from orcdbg.commands.registry import Command
from orcdbg.commands.result import TextLines

def run(debugger, arguments):
    source = FileSource(arguments.path)
    size = source.size
    source.close()
    return TextLines([str(size)])

def register(api):
    arguments = lambda parser: parser.add_argument("path")
    api.add_command(Command("size", "the size of a file", "test", run, arguments))
"""


@pytest.mark.parametrize("operator", [">", ">>"])
def test_a_file_that_the_command_itself_read_is_an_input(
    orcdbg_run: RunProgram, files: tuple[str, str], tmp_path: Path, operator: str
) -> None:
    """As `patch audit --modules DIR` reads modules: it was closed again when the answer is written."""
    plug_in, path = tmp_path / "plug_in.py", tmp_path / "file.ko"
    plug_in.write_text(READER)
    path.write_bytes(b"precious")
    outcome = orcdbg_run(*files, "--plugin", str(plug_in), "-e", f"size {path} {operator} {path}")
    check_refused(outcome, path, digest(path))


def loads() -> list[tuple[int, bytes]]:
    """The sample's memory: physical addresses and bytes."""
    core = ElfFile(FileSource(CORE))
    return [(s.physical, core.source.read_at(s.offset, s.file_size)) for s in core.segments if s.type == PT_LOAD]


def write_memory(path: Path, start: int, end: int) -> None:
    """A plain image of the sample's memory between two physical addresses; holes are holes."""
    with path.open("wb") as file:
        file.truncate(end - start)
        for physical, data in loads():
            if start <= physical and physical + len(data) <= end:
                file.seek(physical - start)
                file.write(data)


def split_kdump(folder: Path) -> list[str]:
    """The sample as a kdump in two parts."""
    pages = {
        (at + step) // 4096: data[step : step + 4096] for at, data in loads() for step in range(0, len(data), 4096)
    }
    core = ElfFile(FileSource(CORE))
    notes = core.source.read_at(core.segments[0].offset, core.segments[0].file_size)
    frames = max(pages) + 1
    paths = []
    for number, part in enumerate([(0, frames // 2), (frames // 2, frames)]):
        paths.append(folder / f"part{number}")
        paths[-1].write_bytes(Kdump(pages, notes=notes, part=part, frames=frames).encode())
    return [str(path) for path in paths]


def suspended(folder: Path) -> list[str]:
    """The sample as a suspended machine, whose memory is in a file that nobody names."""
    (folder / "machine.vmss").write_bytes(vmss(None))
    write_memory(folder / "machine.vmem", 0, 128 << 20)
    return [str(folder / "machine.vmss")]


def pieces(folder: Path) -> list[str]:
    """The sample as two plain images of memory."""
    middle = 16 << 20
    write_memory(folder / "low", 0, middle)
    write_memory(folder / "high", middle, 128 << 20)
    return [f"{folder / 'low'}@0x0", f"{folder / 'high'}@{middle:#x}"]


@pytest.mark.parametrize("make", [split_kdump, suspended, pieces])
def test_every_piece_of_a_snapshot_is_an_input(
    orcdbg_run: RunProgram, tmp_path: Path, make: Callable[[Path], list[str]]
) -> None:
    """Whether it was named or not."""
    folder = tmp_path / "snapshot"
    folder.mkdir()
    snapshot = make(folder)
    shutil.copy(IMAGE, tmp_path / "vmlinux.xz")
    words = [str(tmp_path / "vmlinux.xz"), *snapshot]
    assert len(list(folder.iterdir())) == 2
    for path in folder.iterdir():
        check_refused(orcdbg_run(*words, "-e", f"sym schedule > {path}"), path, digest(path))


def test_what_is_no_input_is_written_as_ever(orcdbg_run: RunProgram, files: tuple[str, str], tmp_path: Path) -> None:
    """Also a file that an earlier command wrote, a device, and what standard output goes to."""
    out = tmp_path / "out"
    words = [*files, "-e", f"sym schedule > {out}", "-e", f"sym schedule >> {out}", "-e", "sym schedule > /dev/null"]
    assert orcdbg_run(*words) == (0, "", "")
    lines = out.read_text().splitlines()
    assert (len(lines), lines[0]) == (2, lines[1])
    assert orcdbg_run(*files, "-e", f"sym linux_banner > {out}")[0] == 0
    assert "linux_banner" in out.read_text() and "schedule" not in out.read_text()
    with out.open("w") as stream:
        command = [sys.executable, "-m", "orcdbg", *files, "-e", f"sym schedule >> {out}"]
        assert subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stream, timeout=60).returncode == 0
    assert "schedule" in out.read_text()


def test_a_command_that_fails_leaves_the_file_alone(
    orcdbg_run: RunProgram, files: tuple[str, str], tmp_path: Path
) -> None:
    """There is no answer that could stand in it."""
    out = tmp_path / "out"
    out.write_text("old")
    assert orcdbg_run(*files, "-e", f"sym no_such_symbol > {out}")[0] == 1
    assert out.read_text() == "old"
