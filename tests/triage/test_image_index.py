"""The index of images: each found by its build-id in whatever it is packed, looked into once, and a damaged cache made anew."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.base.reading import FileSource
from orcdbg.cli.main import sample_files
from orcdbg.formats.elf import ElfFile
from orcdbg.triage.image_index import ImageIndex, index_images

IMAGE, CORE = sample_files()
BUILD_ID = "7339d8fddee0241894f65f126b7e6f70d5fb37d7"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A cache of the test's own."""
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, and much that is none."""
    made = tmp_path / "images"
    (made / "deep" / "er").mkdir(parents=True)
    shutil.copy(IMAGE, made / "deep" / "er" / "whatever")
    shutil.copy(CORE, made / "vmcore")
    (made / "notes").write_bytes(b"\x7fELF" + b"x" * (1 << 19))
    (made / "cut.xz").write_bytes(Path(IMAGE).read_bytes()[: 1 << 19])
    (made / "module.ko.gz").write_bytes(
        gzip.compress(b"\x7fELF" + b"\2\1\1" + bytes(9) + b"\1\0" + os.urandom(1 << 19))
    )
    return made


def cache_file(environment: dict[str, str]) -> Path:
    """Where the index is kept."""
    return Path(environment["XDG_CACHE_HOME"]) / "orcdbg" / "triage" / "images.json"


def looked_again(folder: Path, environment: dict[str, str]) -> ImageIndex:
    """The index once more, when the image can only be known from the cache: its bytes are others."""
    image = folder / "deep" / "er" / "whatever"
    info = image.stat()
    image.write_bytes(bytes(info.st_size))
    os.utime(image, ns=(info.st_atime_ns, info.st_mtime_ns))
    return index_images([str(folder)], environment)


def test_an_image_is_found_by_its_build_id(folder: Path, environment: dict[str, str]) -> None:
    """Below the folder, under any name, packed; dumps, modules, cut and other files are no images."""
    index = index_images([str(folder)], environment)
    assert index.paths == {BUILD_ID: str(folder / "deep" / "er" / "whatever")}
    assert (index.files, index.problems) == (5, [])


def test_of_two_files_of_a_build_the_one_that_need_not_be_unpacked_is_taken(
    folder: Path, environment: dict[str, str]
) -> None:
    """Each dump opens it anew."""
    plain = folder / "zz"
    plain.write_bytes(lzma.decompress(Path(IMAGE).read_bytes()))
    assert index_images([str(folder)], environment).paths == {BUILD_ID: str(plain)}


def test_debugging_information_that_was_split_off_is_no_image(tmp_path: Path, environment: dict[str, str]) -> None:
    """It has the build-id, and no code."""
    data = bytearray(lzma.decompress(Path(IMAGE).read_bytes()))
    debug = tmp_path / "d" / "vmlinux.debug"
    debug.parent.mkdir()
    debug.write_bytes(data)
    elf = ElfFile(FileSource(str(debug)))
    index = next(number for number, section in enumerate(elf.sections) if section.name == ".text")
    start = int.from_bytes(data[40:48], "little") + 64 * index + 4
    data[start : start + 4] = (8).to_bytes(4, "little")  # SHT_NOBITS
    debug.write_bytes(data)
    assert index_images([str(debug.parent)], environment).paths == {}


def test_a_file_is_looked_into_once(folder: Path, environment: dict[str, str]) -> None:
    """The next run knows it by name, size and time of the last change."""
    found = index_images([str(folder)], environment)
    assert cache_file(environment).stat().st_mode & 0o777 == 0o600
    assert looked_again(folder, environment) == found


def test_a_file_that_was_changed_is_looked_into_again(folder: Path, environment: dict[str, str]) -> None:
    """Its time is another."""
    index_images([str(folder)], environment)
    image = folder / "deep" / "er" / "whatever"
    image.write_bytes(bytes(image.stat().st_size))
    os.utime(image, ns=(1, 1))
    assert index_images([str(folder)], environment).paths == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": 2, "files": {}}',
        b'{"version": 1, "files": {"/a": [1, 2, 3, 4]}}',
        b'{"version": 1, "files": {"/a": null}}',
        b'{"version": 1, "files": 5}',
    ],
)
def test_a_damaged_cache_is_made_anew(folder: Path, environment: dict[str, str], data: bytes) -> None:
    """Whatever is in it; the answer is the same."""
    found = index_images([str(folder)], environment)
    cache_file(environment).write_bytes(data)
    assert index_images([str(folder)], environment) == found
    assert json.loads(cache_file(environment).read_bytes())["version"] == 1
    assert looked_again(folder, environment) == found


def test_a_cache_that_others_may_write_is_not_used(folder: Path, environment: dict[str, str]) -> None:
    """It is said, and the images are found all the same."""
    found = index_images([str(folder)], environment)
    cache_file(environment).chmod(0o666)
    index = index_images([str(folder)], environment)
    assert index.paths == found.paths
    assert "others own it or may write there" in index.problems[0]


def test_a_cache_that_cannot_be_written_is_said(folder: Path, tmp_path: Path) -> None:
    """And costs nothing but time."""
    (tmp_path / "file").touch()
    index = index_images([str(folder)], {"XDG_CACHE_HOME": str(tmp_path / "file")})
    assert list(index.paths) == [BUILD_ID]
    assert "looked at again the next time" in index.problems[0]


def test_what_is_no_folder_is_refused(environment: dict[str, str]) -> None:
    """A file's name, and none at all."""
    for name in (IMAGE, "/no/such"):
        with pytest.raises(UsageError, match="not a folder"):
            index_images([name], environment)
