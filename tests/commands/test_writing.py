"""Files that commands write: nothing that is read is lost, and nothing half-written is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.cli.main import sample_files
from orcdbg.commands import writing
from orcdbg.commands.writing import refuse_outputs, replacing
from tests.conftest import RunProgram


def write(path: Path, data: bytes, *inputs: str) -> None:
    """Writes through the context manager."""
    with replacing(str(path), inputs) as file:
        file.write(data)


def test_a_file_is_replaced_only_when_all_is_written(tmp_path: Path) -> None:
    """An error on the way leaves the old file, and no other."""
    path = tmp_path / "file"
    write(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(str(path)) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])
    write(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("has_nameless_files", [True, False])
def test_nothing_is_left_of_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_nameless_files: bool
) -> None:
    """Whether or not the file system knows files without a name."""
    if not has_nameless_files:
        monkeypatch.setattr(writing, "_open_nameless", lambda folder: None)
    path = tmp_path / "file"
    write(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(str(path)) as file:
        file.write(b"half")
        assert len(list(tmp_path.iterdir())) == (1 if has_nameless_files else 2)
        raise ZeroDivisionError
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])
    write(path, b"new")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"new", [path])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("is_nameless", [True, False])
def test_nothing_is_left_by_a_program_that_is_ended(tmp_path: Path, number: int, is_nameless: bool) -> None:
    """By a signal while it writes; one that only exits when asked is not what is tested, so the status is compared."""
    replaced = "" if is_nameless else "writing._open_nameless = lambda folder: None\n"
    code = f"""
import os, signal, sys
from orcdbg.cli import entry, main
from orcdbg.commands import writing
{replaced}
def write() -> int:
    with writing.replacing({str(tmp_path / "file")!r}) as file:
        file.write(b"half")
        os.kill(os.getpid(), {int(number)})
        for _ in range(1000):
            pass
    return 0
main.main = write
sys.exit(entry.start())
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "an empty name is no file's"),
        ("{}/new/", "{}/new/: is a folder's name"),
        ("{}/", "{}/: is a folder's name"),
        ("{}", "{}: is a folder's name"),
        ("{}/" + "x" * 300, "{}/" + "x" * 300 + ": cannot be written: File name too long"),
        ("{}/no/file", "{}/no/file: cannot be written: No such file or directory"),
    ],
)
def test_what_is_no_files_name_is_refused_first(tmp_path: Path, name: str, said: str) -> None:
    """Before anything is worked out."""
    with pytest.raises(UsageError) as refused:
        refuse_outputs(name.format(tmp_path))
    assert refused.value.message == said.format(tmp_path)
    with pytest.raises(UsageError) as refused, replacing(name.format(tmp_path)):
        raise AssertionError("it was begun")
    assert refused.value.message == said.format(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    """The name that the file has meanwhile is no longer."""
    path = tmp_path / ("x" * 255)
    write(path, b"all")
    assert path.read_bytes() == b"all"


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    """Neither what is named, nor what is open, nor by another name of it."""
    path, link, other = tmp_path / "file", tmp_path / "link", tmp_path / "other"
    path.write_bytes(b"precious")
    link.symlink_to(path)
    os.link(path, other)
    for name in (path, link, other):
        with pytest.raises(UsageError, match="is one of the files that are read"):
            write(name, b"x", str(path))
        with path.open("rb"), pytest.raises(UsageError, match="is one of the files that are read"):
            write(name, b"x")
    assert path.read_bytes() == b"precious"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that it leads to is the one that is written."""
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    write(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_a_device_is_written_and_not_replaced() -> None:
    """A full one says so."""
    with pytest.raises(UsageError, match="/dev/full: cannot be written: No space left on device"):
        write(Path("/dev/full"), b"x" * 100_000)
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("command", ["patch export -o {}", "patch replay -o {}"])
def test_commands_do_not_write_over_their_files(orcdbg_run: RunProgram, tmp_path: Path, command: str) -> None:
    """Whichever of the two files is named."""
    files = [shutil.copy(file, tmp_path) for file in sample_files()]
    sizes = [Path(file).stat().st_size for file in files]
    for file in files:
        status, _, err = orcdbg_run(*files, "-e", command.format(file))
        assert (status, "is one of the files that are read" in err) == (2, True)
    assert [Path(file).stat().st_size for file in files] == sizes


@pytest.mark.parametrize("words", [[], ["--image"]])
def test_trim_does_not_write_over_its_files(orcdbg_run: RunProgram, tmp_path: Path, words: list[str]) -> None:
    """The only copy of a snapshot may be the one that is named twice."""
    files = [shutil.copy(file, tmp_path) for file in sample_files()]
    given = files[:1] if words else files
    for file in given:
        size = Path(file).stat().st_size
        status, out, err = orcdbg_run("trim", *words, *given, "-o", file)
        assert (status, out, "is one of the files that are read" in err) == (2, "", True)
        assert Path(file).stat().st_size == size
