"""Which file is the one of a loaded module: by name first, and of several by what is in them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from orcdbg.base.errors import Mismatch, NotFound, OrcdbgError, UnsupportedFormat
from orcdbg.commands.module_files import files_below, matching_file
from orcdbg.formats.elf import SHT_NOBITS
from orcdbg.image.module_file import ModuleFile
from tests.build import elf
from tests.build.bzimage import PACKERS


def module(mark: bytes) -> bytes:
    """A module file that holds `mark`."""
    parts = [elf.Part(".text", 0, mark, flags=6), elf.Part(".strtab", 0, b"\0", type=3, flags=0)]
    data = bytearray(elf.image([*parts, elf.Part(".symtab", 0, bytes(24), type=2, flags=0, link=2)]))
    data[16:18] = b"\1\0"  # ET_REL
    return bytes(data)


def refuse_all_but(mark: bytes, file: ModuleFile) -> None:
    """What a comparison of build-ids does."""
    found = file.elf.data(file.elf.by_name[".text"])
    if found != mark:
        raise Mismatch("build-id", found.hex(), mark.hex())


def test_only_module_files_count(tmp_path: Path) -> None:
    """Packed ones too; debug files and others beside them do not."""
    names = ("snd-pcm.ko", "loop.ko.xz", "loop.ko.zst", "loop.ko.gz", "loop.ko.debug", "loop.ko.orig.gz", "loop.kobj")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = {name: [path.name for path in paths] for name, paths in files_below(str(tmp_path)).items()}
    assert found == {"snd_pcm": ["snd-pcm.ko"], "loop": ["loop.ko.gz", "loop.ko.xz", "loop.ko.zst"]}


@pytest.mark.parametrize("packer", ["gzip", "xz", "zstd"])
def test_of_several_files_the_one_of_the_build_is_taken(packer: str, tmp_path: Path) -> None:
    """Wherever it stands among them; files that cannot be read do not matter."""
    for folder, data in (
        ("a", PACKERS[packer](module(b"other"))),
        ("b", b"junk"),
        ("c", PACKERS[packer](module(b"ours"))),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "loop.ko.xz").write_bytes(data)
    files = files_below(str(tmp_path))["loop"]
    assert matching_file(files, "loop", lambda file: refuse_all_but(b"ours", file)).path == str(files[2])
    with pytest.raises(OrcdbgError):
        matching_file(files[:2], "loop", lambda file: refuse_all_but(b"ours", file))


def test_no_file_is_named() -> None:
    """By the module's name."""
    with pytest.raises(NotFound, match="loop"):
        matching_file((), "loop", lambda file: None)


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_file_without_code_is_no_modules_file(first: str, tmp_path: Path) -> None:
    """Debugging information alone, which would audit as no bytes: the other file of the name is used, else it is said."""
    alone = bytearray(module(b"ours"))
    at = struct.unpack_from("<Q", alone, 40)[0] + 64 + 4  # sh_type of the first section behind the empty one
    assert alone[at] == 1
    alone[at] = SHT_NOBITS
    second = "b" if first == "a" else "a"
    for folder, data in ((first, bytes(alone)), (second, module(b"ours"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "loop.ko").write_bytes(data)
    files = files_below(str(tmp_path))["loop"]
    assert matching_file(files, "loop", lambda file: None).path == str(tmp_path / second / "loop.ko")
    with pytest.raises(UnsupportedFormat, match="only debugging information: the module's code is not in it"):
        matching_file([tmp_path / first / "loop.ko"], "loop", lambda file: None)
