"""orcdbg checkup: every pair of files, whole or not, gets an account, and never a traceback."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from orcdbg.base.reading import FileSource
from orcdbg.cli.main import sample_files
from orcdbg.formats.elf import PT_LOAD, ElfFile
from orcdbg.image.vmlinux import open_source
from tests.build import elf
from tests.build.debug_files import by_build_id, debug_file, put
from tests.build.sample import changed_core
from tests.conftest import RunProgram

BUILD_ID = "7339d8fddee0241894f65f126b7e6f70d5fb37d7"


def checkup(run: RunProgram, *files: str) -> tuple[int, dict[str, Any]]:
    """Exit status and result."""
    status, out, err = run("checkup", *files, "--format", "json")
    assert err == ""
    answer = json.loads(out)
    assert (answer["command"], answer["ok"]) == ("checkup", True)
    return status, answer["result"]


def missing(result: dict[str, Any]) -> list[str]:
    """What is missing, by name."""
    return [one["what"] for one in result["missing"]]


def test_image_and_snapshot(orcdbg_run: RunProgram) -> None:
    """Both are named with what they hold, and only what a small image lacks is missing."""
    status, result = checkup(orcdbg_run, *reversed(sample_files()))
    facts = result["facts"]
    assert (status, result["usable"], result["error"]) == (0, True, None)
    assert [one["kind"] for one in result["files"]] == ["an ELF core", "a compressed file"]
    assert (facts["release"], facts["build_id"]) == ("5.10.223", BUILD_ID)
    assert (facts["cpu_registers"], facts["cpus"], facts["tasks"]) == (1, 1, 42)
    assert (facts["vmcoreinfo"], facts["symbols"], facts["orc"]) == ("present", ".symtab", "4.14")
    assert (facts["text_pages"], facts["text_pages_missing"]) == (1538, 0)
    assert missing(result) == ["DWARF lines"]
    assert result["missing"][0]["command"] == f"debuginfod-find debuginfo {BUILD_ID}"


def test_debugging_information_that_was_split_off(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """It is found below the folders that are named, and then nothing is missing."""
    put(by_build_id(tmp_path, BUILD_ID), debug_file(bytes.fromhex(BUILD_ID)))
    status, result = checkup(orcdbg_run, *sample_files(), "--debug-dir", str(tmp_path))
    assert (status, missing(result)) == (0, [])
    assert result["facts"]["debug_information"] == str(by_build_id(tmp_path, BUILD_ID))
    assert checkup(orcdbg_run, *sample_files())[1]["facts"]["debug_information"] is None


def test_a_journal_that_cannot_be_used(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """It is said like a file that cannot."""
    put(tmp_path / "journal", b"{}\n")
    status, result = checkup(orcdbg_run, *sample_files(), "--patches", str(tmp_path / "journal"))
    assert (status, result["usable"]) == (3, False)
    assert str(tmp_path / "journal") in result["error"]["message"]


def test_an_image_alone(orcdbg_run: RunProgram) -> None:
    """It is of use for the checks of a build."""
    status, result = checkup(orcdbg_run, sample_files()[0])
    assert (status, result["usable"]) == (0, True)
    assert missing(result) == ["snapshot", "DWARF lines"]
    assert result["facts"]["release"] == "5.10.223"


def test_a_snapshot_alone(orcdbg_run: RunProgram) -> None:
    """One that is not enough by itself says so, and which kernel's image it wants."""
    status, result = checkup(orcdbg_run, sample_files()[1])
    assert (status, result["usable"], missing(result)) == (3, False, ["image"])
    assert result["missing"][0]["command"] == f"debuginfod-find debuginfo {BUILD_ID}"
    assert "symbol tables" in result["error"]["message"]


def test_a_snapshot_without_notes(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Registers and VMCOREINFO are missed, and what told the kernel's place instead is said."""
    core = changed_core(tmp_path / "core", notes=())
    status, result = checkup(orcdbg_run, sample_files()[0], core)
    facts = result["facts"]
    assert (status, facts["cpu_registers"], facts["vmcoreinfo"]) == (0, 0, "absent")
    assert facts["placement"].startswith("the banner found in memory")
    assert {"CPU registers", "VMCOREINFO"} <= set(missing(result))


def test_a_vmcoreinfo_that_is_found_by_search(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """It is told from one that the file has, and is not missed."""
    file = ElfFile(FileSource(sample_files()[1]))
    found = next(one for one in file.notes() if one.name == "VMCOREINFO")
    note = elf.note(found.name, found.type, found.data)
    loads = [one for one in file.segments if one.type == PT_LOAD]
    blanks = ((one, file.source.read_at(one.offset, one.file_size).rfind(bytes(len(note)))) for one in loads)
    at = next(one.physical + -(-offset // 4) * 4 for one, offset in blanks if offset >= 0)
    core = changed_core(tmp_path / "core", notes=(), patches={at: note})
    status, result = checkup(orcdbg_run, sample_files()[0], core)
    assert (status, result["facts"]["vmcoreinfo"]) == (0, "found by search")
    assert "VMCOREINFO" not in missing(result)


def test_pages_of_text_that_are_missing_are_counted(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """With what is seen in their place."""
    core = changed_core(tmp_path / "core", without=range(0x1100000, 0x1103000, 4096))
    status, result = checkup(orcdbg_run, sample_files()[0], core)
    assert (status, result["facts"]["text_pages_missing"]) == (0, 3)
    assert "3 of 1538 pages of kernel text" in missing(result)


def test_a_trimmed_snapshot(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """It is told by its format, and how much was cut from its pages."""
    small = str(tmp_path / "small")
    assert orcdbg_run("trim", *sample_files(), "-o", small)[0] == 0
    status, result = checkup(orcdbg_run, sample_files()[0], small)
    assert (status, result["facts"]["format"]) == (0, "ELF core (QEMU, trimmed)")
    assert result["facts"]["trimmed_bytes"] > 0
    text = next(one for one in result["missing"] if "kernel text" in one["what"])
    assert text["command"] == "orcdbg trim VMLINUX SNAPSHOT -o FILE --text"


def test_what_is_zero_filled_and_what_is_cut_off_are_two_things(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Both are counted, in bytes."""
    cut = tmp_path / "cut"
    cut.write_bytes(elf.core([elf.Load(0x1000, b"x" * 8192)])[:-4096])
    assert checkup(orcdbg_run, str(cut))[1]["facts"]["cut_off_bytes"] == 4096
    longer = tmp_path / "longer"
    data = bytearray(elf.core([elf.Load(0x1000, b"x" * 4096)]))
    sizes = data.rindex(struct.pack("<QQ", 4096, 4096))
    data[sizes : sizes + 16] = struct.pack("<QQ", 4096, 12288)
    longer.write_bytes(data)
    assert checkup(orcdbg_run, str(longer))[1]["facts"]["zero_filled_bytes"] == 8192


def test_an_image_of_another_build(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """The status is that of a mismatch, and the command gets the right one."""
    source = open_source(sample_files()[0])
    other = tmp_path / "vmlinux"
    other.write_bytes(source.read_at(0, source.size).replace(bytes.fromhex(BUILD_ID), bytes(19) + b"\1"))
    status, result = checkup(orcdbg_run, str(other), sample_files()[1])
    assert (status, result["error"]["kind"]) == (4, "mismatch")
    assert missing(result)[0] == "the image of this kernel"
    assert result["missing"][0]["command"] == f"debuginfod-find debuginfo {BUILD_ID}"


@pytest.mark.parametrize("kept", [0, 3, 64, 4096, 100_000])
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_files_are_said_to_be(orcdbg_run: RunProgram, tmp_path: Path, which: int, kept: int) -> None:
    """A file that was cut off has a line of its own, the other is still described."""
    files = sample_files()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(Path(files[which]).read_bytes()[:kept])
    status, result = checkup(
        orcdbg_run, *[str(damaged) if number == which else one for number, one in enumerate(files)]
    )
    if status:
        assert not result["usable"]
        assert result["error"]["message"]
    else:
        assert (which, kept) == (1, 100_000)  # its headers and notes are whole
        assert "cut off" in result["warnings"][0]
        assert "task list" in missing(result)
    assert result["facts"]["release"] in ("5.10.223", None)
    assert orcdbg_run("checkup", str(damaged))[1].splitlines()[-1] != "usable"


def test_a_file_that_is_not_there(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """It is no reason to say nothing of the other."""
    status, result = checkup(orcdbg_run, str(tmp_path / "none"), sample_files()[0])
    assert status == 3
    assert result["files"][0]["problem"]
    assert result["facts"]["release"] == "5.10.223"


def test_the_text_says_all_of_it(orcdbg_run: RunProgram) -> None:
    """Files, facts, what is missing with its command, and the verdict last."""
    status, out, _ = orcdbg_run("checkup", *sample_files())
    lines = out.splitlines()
    assert (status, lines[-1]) == (0, "usable")
    assert lines[0].endswith("vmlinux.xz: a compressed file")
    assert any(line.startswith("missing: DWARF lines: ") for line in lines)
    assert f"    debuginfod-find debuginfo {BUILD_ID}" in lines
