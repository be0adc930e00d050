"""A vmlinux without `.BTF`: types come from memory, a file, or pahole, and are this kernel's or refused."""

from __future__ import annotations

import io
import json
import lzma
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest

from orcdbg.base.errors import BadAddress, MemoryFault, OtherTypes, UnsupportedFormat, UsageError
from orcdbg.cli.main import sample_files
from orcdbg.image.vmlinux import open_image, open_source
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.symbols import btf as kinds
from orcdbg.symbols.btf import Btf
from orcdbg.symbols.btf_facts import check_types
from orcdbg.symbols.btf_files import read_btf_file
from orcdbg.symbols.btf_in_memory import find_btf
from orcdbg.symbols.btf_made import cache_folder, find_program, keep_btf, kept_btf
from orcdbg.target.kernel_types import TypeOrigin
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from tests.build.btf import BtfBuilder
from tests.build.debug_files import by_build_id, debug_file, put
from tests.build.memory import SparseMemory
from tests.build.sample import changed_core
from tests.conftest import RunProgram

BUILD_ID = "7339d8fddee0241894f65f126b7e6f70d5fb37d7"
RELEASE = "5.10.223"
CORE = sample_files()[1]
ASKED = ("-e", "foreach bt", "-e", "bt -a", "-e", "ps", "-e", "struct task_struct")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was made outside of the test counts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def btf(sample: Session) -> bytes:
    """The sample's own BTF."""
    return sample.image.section_data(".BTF")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample's vmlinux, in which no section is called `.BTF`."""
    source = open_source(sample_files()[0])
    path = tmp_path_factory.mktemp("bare") / "vmlinux"
    path.write_bytes(source.read_at(0, source.size).replace(b"\0.BTF\0", b"\0.XTF\0"))
    return str(path)


@pytest.fixture
def expected(orcdbg_run: RunProgram) -> str:
    """What is answered with `.BTF`."""
    status, out, _ = orcdbg_run(*sample_files(), *ASKED)
    assert status == 0
    return out


class WithBtf(KernelMemory):
    """The sample's virtual memory with BTF in it, whose pages the sample leaves out."""

    address = 0
    data = b""

    def read(self, address: int, size: int) -> bytes:
        """Of the BTF, or of the rest."""
        start = address - self.address
        if start >= 0 and start + size <= len(self.data):
            return self.data[start : start + size]
        return super().read(address, size)


def in_memory(sample: Session, bare: str, data: bytes, *, named: bool = True) -> Session:
    """The sample's kernel with BTF in memory where it was built; with `named` false, no symbol says where that is."""
    section = sample.image.find_section(".BTF")
    assert section is not None
    place = sample.placement
    memory = WithBtf(sample.snapshot.physical, place.root, place.levels, place.sme_mask)
    # Whole pages, for a search reads them as such.
    memory.address = section.address & -4096
    memory.data = bytes(section.address % 4096) + data
    memory.data += bytes(-len(memory.data) % 4096)
    if not named:
        source = open_source(bare)
        whole = source.read_at(0, source.size).replace(b"\0__start_BTF\0", b"\0__stare_BTF\0")
        bare = f"{bare}-without-names"
        Path(bare).write_bytes(whole)
    return Session(open_image(bare), sample.snapshot, mapped=(place, memory))


def tar_xz(files: dict[str, bytes]) -> bytes:
    """As BTFHub packs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return lzma.compress(out.getvalue(), preset=0)


def resized(data: bytes, structure: str, size: int) -> bytes:
    """BTF in which a structure has another size."""
    btf = Btf(data, "test")
    type_id = btf.find(kinds.STRUCT, structure)
    assert type_id is not None
    changed = bytearray(data)
    struct.pack_into("<I", changed, 24 + 4 * (btf.raw(type_id).at - 1), size)
    return bytes(changed)


def test_without_types_nothing_is_opened(bare: str, orcdbg_run: RunProgram) -> None:
    """One line says what is missing, and the next what cures it."""
    status, out, err = orcdbg_run(bare, CORE, "-e", "ps")
    assert (status, out) == (3, "")
    first, hint = err.splitlines()
    assert "no BTF type information; in memory: not in the snapshot" in first
    assert hint.startswith("hint: orcdbg --btf FILE")


# Memory


@pytest.mark.parametrize("named", [True, False])
def test_types_from_memory(sample: Session, bare: str, btf: bytes, named: bool) -> None:
    """Where symbols say that they are, or where they are found by their header."""
    session = in_memory(sample, bare, btf, named=named)
    section = sample.image.find_section(".BTF")
    assert section is not None
    assert session.found_types.origin is TypeOrigin.MEMORY
    assert session.found_types.where == f"memory at {section.address:#x}"
    assert session.types.members("task_struct") == sample.types.members("task_struct")


@pytest.mark.parametrize("named", [True, False])
def test_types_in_memory_that_were_changed(sample: Session, bare: str, btf: bytes, named: bool) -> None:
    """They are not believed: the kernel's own word about `struct page` is another."""
    with pytest.raises(UnsupportedFormat, match="page has 64 bytes there, VMCOREINFO says 56"):
        in_memory(sample, bare, resized(btf, "page", 64), named=named)


def _made(structures: int) -> bytes:
    """BTF with a task_struct and some more."""
    made = BtfBuilder()
    for number in range(structures):
        made.structure(f"s{number}", 8, [])
    made.structure("task_struct", 8, [])
    return made.encode()


def test_the_search_takes_the_largest_that_is_good() -> None:
    """BPF programs in the kernel have BTF of their own, and any bytes may look like a header."""
    area = bytearray(0x8000)
    area[0x100:0x118] = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0x40, 0x40, 0x6000)
    area[0x1001 : 0x1001 + len(_made(3))] = _made(3)
    area[0x3003 : 0x3003 + len(_made(9))] = _made(9)
    memory = SparseMemory()
    memory.put(0x10000, bytes(area))

    def check(btf: Btf) -> None:
        assert btf.find(kinds.STRUCT, "task_struct")

    found = find_btf(memory, None, lambda: (0x10000, 0x18000), check)
    assert found.address == 0x13003


def test_bounds_that_make_no_sense() -> None:
    """Symbols are of a file, which may say anything."""
    for bounds in ((0x2000, 0x1000), (0, 1 << 63)):
        with pytest.raises(UnsupportedFormat, match="bytes of BTF"):
            find_btf(SparseMemory(), bounds, lambda: (0, 0), lambda btf: None)


# A file


@pytest.mark.parametrize("form", ["raw", "xz", "tar.xz", "elf", "folder"])
def test_types_from_a_file(
    form: str, bare: str, btf: bytes, tmp_path: Path, expected: str, orcdbg_run: RunProgram
) -> None:
    """In each form in which people have them, they answer as the image's own do."""
    path = tmp_path / "types"
    if form == "folder":
        put(path / "debian" / "11" / "x86_64" / f"{RELEASE}.btf.tar.xz", tar_xz({f"{RELEASE}.btf": btf}))
        put(path / "debian" / "11" / "arm64" / f"{RELEASE}.btf.tar.xz", b"of another machine")
        put(path / "debian" / "11" / "x86_64" / "5.10.224.btf.tar.xz", b"of another release")
    elif form == "elf":
        path = Path(sample_files()[0])
    else:
        packed = {"raw": btf, "xz": lzma.compress(btf, preset=0), "tar.xz": tar_xz({"any name": btf})}
        path.write_bytes(packed[form])
    status, out, err = orcdbg_run(bare, CORE, "--btf", str(path), *ASKED)
    assert (status, out, err) == (0, expected, "")


def test_a_file_that_is_not_needed(btf: bytes, tmp_path: Path, orcdbg_run: RunProgram) -> None:
    """It is said, and another kernel's is refused all the same."""
    (tmp_path / "good").write_bytes(btf)
    (tmp_path / "other").write_bytes(resized(btf, "list_head", 24))
    status, _, err = orcdbg_run(*sample_files(), "--btf", str(tmp_path / "good"), "-e", "bt")
    assert (status, "not used: the image has the kernel's own types" in err) == (0, True)
    status, _, err = orcdbg_run(*sample_files(), "--btf", str(tmp_path / "other"), "-e", "bt")
    assert status == 4
    assert "list_head has 24 bytes there, VMCOREINFO says 16" in err


@pytest.mark.parametrize(
    ("structure", "size", "what"),
    [
        ("page", 64, "page has 64 bytes there, VMCOREINFO says 56"),
        ("task_struct", 4096, "struct task_struct has 4096 bytes there, the symbol init_task has"),
        ("cpuinfo_x86", 512, "struct cpuinfo_x86 has 512 bytes there, the symbol boot_cpu_data has"),
    ],
)
def test_types_of_another_kernel(
    structure: str, size: int, what: str, bare: str, btf: bytes, tmp_path: Path, orcdbg_run: RunProgram
) -> None:
    """By what VMCOREINFO says, and by what the symbols say; without VMCOREINFO too."""
    (tmp_path / "other").write_bytes(resized(btf, structure, size))
    status, out, err = orcdbg_run(bare, CORE, "--btf", str(tmp_path / "other"), "-e", "bt")
    assert (status, out) == (4, "")
    assert err.startswith(f"orcdbg: {tmp_path / 'other'}: the types of another kernel: ")
    assert what in err.splitlines()[0]


def test_the_first_task_has_its_name(sample: Session, btf: bytes) -> None:
    """A kernel without VMCOREINFO and sizes of symbols still tells whether a task's name is where the types say."""

    class Shifted:
        def read(self, address: int, size: int) -> bytes:
            return sample.memory.read(address + 1, size)

    class Nothing:
        def read(self, address: int, size: int) -> bytes:
            raise BadAddress("virtual", address, size)

    check_types(Btf(btf, "x"), {}, sample.symbols, sample.slide, sample.memory)
    check_types(Btf(btf, "x"), {}, sample.symbols, sample.slide, Nothing())
    with pytest.raises(OtherTypes, match="the first task's name"):
        check_types(Btf(btf, "x"), {}, sample.symbols, sample.slide, Shifted())


def test_a_folder_needs_one_file_of_a_known_release(tmp_path: Path, btf: bytes) -> None:
    """None, two, and no release; a release never becomes a path."""
    put(tmp_path / "a" / "1.btf", btf)
    put(tmp_path / "b" / "1.btf", btf)
    for release in (None, "1"):
        with pytest.raises(UsageError):
            read_btf_file(str(tmp_path), release)
    for release in ("2", "../1", "a/1"):
        with pytest.raises(Exception, match="no such BTF of the release"):
            read_btf_file(str(tmp_path), release)


def test_damage_anywhere_is_an_error(bare: str, btf: bytes, tmp_path: Path, orcdbg_run: RunProgram) -> None:
    """One line, whatever was done to the file."""
    packed = tar_xz({f"{RELEASE}.btf": btf})
    cases = {
        "empty": b"",
        "a half": btf[: len(btf) // 2],
        "two billion types": btf[:12] + struct.pack("<I", 1 << 31) + btf[16:],
        "another byte order": btf[1::-1] + btf[2:],
        "packed, a half": packed[: len(packed) // 2],
        "two files": tar_xz({"a": btf, "b": btf}),
        "no file": tar_xz({}),
        "an archive of text": tar_xz({f"{RELEASE}.btf": b"text"}),
    }
    for name, data in cases.items():
        (tmp_path / "types").write_bytes(data)
        status, out, err = orcdbg_run(bare, CORE, "--btf", str(tmp_path / "types"), "-e", "bt")
        assert (status in (1, 3), out) == (True, ""), name
        assert err.startswith("orcdbg: ") and "Traceback" not in err, name
        assert len([line for line in err.splitlines() if not line.startswith("hint: ")]) == 1, name


# pahole


def fake_pahole(folder: Path, script: str) -> None:
    """A program of that name, first in the path."""
    folder.mkdir()
    program = folder / "pahole"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo v1.24 && exit\n{script}\n')
    program.chmod(0o755)


@pytest.fixture
def with_dwarf(tmp_path: Path) -> tuple[str, ...]:
    """The options that give the sample debugging information."""
    put(by_build_id(tmp_path / "debug", BUILD_ID), debug_file(bytes.fromhex(BUILD_ID)))
    return "--debug-dir", str(tmp_path / "debug")


def test_pahole_makes_types_once(
    bare: str,
    btf: bytes,
    tmp_path: Path,
    expected: str,
    with_dwarf: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    orcdbg_run: RunProgram,
) -> None:
    """They are kept for this user alone, and found there without being asked for."""
    (tmp_path / "ready").write_bytes(btf)
    fake_pahole(tmp_path / "bin", f'while [ "$1" != --btf_encode_detached ]; do shift; done; cp {tmp_path}/ready "$2"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert orcdbg_run(bare, CORE, *with_dwarf, "--make-btf", *ASKED) == (0, expected, "")

    folder = cache_folder(os.environ)
    assert [file.name for file in folder.iterdir()] == [f"{BUILD_ID}.btf"]
    modes = [path.stat().st_mode & 0o777 for path in (folder.parent, folder, folder / f"{BUILD_ID}.btf")]
    assert modes == [0o700, 0o700, 0o600]

    (tmp_path / "bin" / "pahole").unlink()
    assert orcdbg_run(bare, CORE, *ASKED) == (0, expected, "")


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("echo out of memory >&2; exit 1", "out of memory"),
        ("exit 3", "exit status 3"),
        ("kill -9 $$", "exit status -9"),
        ("exit 0", "it made nothing"),
        ('while [ "$1" != --btf_encode_detached ]; do shift; done; echo no types > "$2"', "no BTF type information"),
    ],
)
def test_pahole_fails(
    script: str,
    what: str,
    bare: str,
    tmp_path: Path,
    with_dwarf: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    orcdbg_run: RunProgram,
) -> None:
    """One line says why, and nothing is kept."""
    fake_pahole(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    status, out, err = orcdbg_run(bare, CORE, *with_dwarf, "--make-btf", "-e", "bt")
    assert (status in (1, 3), out, what in err.splitlines()[0]) == (True, "", True)
    assert not (tmp_path / "cache").exists()


def test_no_pahole(
    bare: str,
    tmp_path: Path,
    with_dwarf: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    orcdbg_run: RunProgram,
) -> None:
    """One line, and the command that installs it; one in the current folder is not run."""
    fake_pahole(tmp_path / "here", f"touch {tmp_path}/ran")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", f":.:{tmp_path / 'nothing'}:here")
    assert find_program("pahole", os.environ) is None
    status, _, err = orcdbg_run(bare, CORE, *with_dwarf, "--make-btf", "-e", "bt")
    assert status == 1
    assert err.splitlines() == ["orcdbg: --make-btf: pahole is not installed", "hint: apt install pahole"]
    assert not (tmp_path / "ran").exists()

    # Nor is there anything to run it on.
    status, _, err = orcdbg_run(bare, CORE, "--make-btf", "-e", "bt")
    assert (status, "there is no DWARF" in err) == (3, True)


def test_what_others_may_have_put_there_is_not_used(tmp_path: Path, btf: bytes) -> None:
    """A folder that others may write to, a link in its place, a link or a pipe in the file's place."""
    folder = cache_folder(os.environ)
    keep_btf(btf, BUILD_ID, os.environ)
    assert kept_btf(BUILD_ID, os.environ) is not None
    assert kept_btf("../" * 8 + "etc/passwd", os.environ) is None

    folder.chmod(0o777)
    with pytest.raises(UsageError, match="others own it or may write there"):
        kept_btf(BUILD_ID, os.environ)
    with pytest.raises(UsageError, match="others own it or may write there"):
        keep_btf(btf, BUILD_ID, os.environ)
    folder.chmod(0o700)

    file = folder / f"{BUILD_ID}.btf"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert kept_btf(BUILD_ID, os.environ) is None
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UnsupportedFormat, match="not a regular file"):
        kept_btf(BUILD_ID, os.environ)
    file.unlink()

    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert kept_btf(BUILD_ID, os.environ) is None
    with pytest.raises(UsageError, match="cannot be written"):
        keep_btf(btf, BUILD_ID, os.environ)


def test_kept_types_of_another_kernel_are_passed_over(
    bare: str, btf: bytes, tmp_path: Path, orcdbg_run: RunProgram
) -> None:
    """With a warning; a file may have come to have the name."""
    keep_btf(resized(btf, "page", 64), BUILD_ID, os.environ)
    status, _, err = orcdbg_run(bare, CORE, "-e", "bt")
    assert (status, "no BTF type information" in err) == (3, True)


# The account


def checkup(run: RunProgram, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit status and result."""
    status, out, _ = run("checkup", *words, "--format", "json")
    return status, json.loads(out)["result"]


def test_checkup_says_where_types_are_from(bare: str, btf: bytes, tmp_path: Path, orcdbg_run: RunProgram) -> None:
    """And that they are missing, with the command that gets them."""
    path = tmp_path / "types"
    path.write_bytes(btf)
    status, result = checkup(orcdbg_run, bare, CORE, "--btf", str(path))
    assert (status, result["usable"], result["facts"]["types"]) == (0, True, str(path))
    assert "BTF" not in [each["what"] for each in result["missing"]]

    status, result = checkup(orcdbg_run, bare, CORE)
    assert (status, result["usable"], result["facts"]["types"]) == (3, False, None)
    lacks = {each["what"]: each["command"] for each in result["missing"]}
    assert lacks["BTF"] == f"debuginfod-find debuginfo {BUILD_ID}"
    assert checkup(orcdbg_run, *sample_files())[1]["facts"]["types"] == "image"


def test_checkup_names_what_makes_types(
    bare: str, tmp_path: Path, with_dwarf: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, orcdbg_run: RunProgram
) -> None:
    """Where there is DWARF: pahole, or the command that installs it."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for command in ("apt install pahole", "orcdbg --make-btf VMLINUX SNAPSHOT"):
        _, result = checkup(orcdbg_run, bare, CORE, *with_dwarf)
        lacks = {each["what"]: each["command"] for each in result["missing"]}
        assert lacks["BTF"] == command
        if not (tmp_path / "bin").exists():
            fake_pahole(tmp_path / "bin", "exit 1")


def test_files_in_which_no_stack_can_be_walked_are_not_usable(tmp_path: Path, orcdbg_run: RunProgram) -> None:
    """A snapshot without the stacks and the registers, and a vmlinux alone without ORC."""
    session = open_session(*sample_files())
    stacks = set()
    for task in session.tasks:
        for page in range(task.stack, task.stack + 0x4000, 4096):
            try:
                stacks.add(session.memory.translate(page))
            except MemoryFault:
                continue
    assert stacks
    core = changed_core(tmp_path / "core", notes=("VMCOREINFO",), without=stacks)
    status, result = checkup(orcdbg_run, sample_files()[0], core)
    assert (status, result["usable"]) == (1, False)
    assert "no stack can be walked" in result["error"]["message"]

    source = open_source(sample_files()[0])
    other = tmp_path / "vmlinux"
    other.write_bytes(source.read_at(0, source.size).replace(b"\0.orc_unwind\0", b"\0.xrc_unwind\0"))
    status, result = checkup(orcdbg_run, str(other))
    assert (status, result["usable"]) == (3, False)
    assert "without ORC" in result["error"]["message"]
