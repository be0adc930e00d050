"""Tar archives: their regular files, and damage of any kind as an error."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import OrcdbgError, UnsupportedFormat
from orcdbg.base.reading import BytesSource
from orcdbg.formats.tar import is_tar, tar_entries


def archive(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """What tar makes of files, in a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        made.addfile(tarfile.TarInfo("folder/"))
        for name, data in files.items():
            entry = tarfile.TarInfo(f"folder/{name}")
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def contents(data: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    return {entry.name: entry.contents.read_at(0, entry.contents.size) for entry in tar_entries(BytesSource("t", data))}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_files_come_out_as_they_went_in(form: int) -> None:
    """By every form that tar writes, their names without folders."""
    files = {"one.btf": b"1" * 1000, "empty": b"", "two.btf": b"2" * 512}
    made = archive(files, form)
    assert is_tar(made[:512])
    assert {name: data for name, data in contents(made).items() if name in files} == files


@pytest.mark.parametrize("size", range(0, 3000, 97))
def test_an_archive_that_is_cut_off(size: int) -> None:
    """Gives the files before, or an error; never a file that is shorter than its header says."""
    files = {"a": b"a" * 700, "b": b"b" * 900}
    try:
        found = contents(archive(files)[:size])
    except UnsupportedFormat:
        return
    assert found.items() <= files.items()


@given(st.binary(max_size=600), st.integers(0, 1500))
def test_any_bytes_give_files_or_an_error(data: bytes, place: int) -> None:
    """Nothing else."""
    whole = bytearray(archive({"a": b"a" * 700}))
    whole[place : place + len(data)] = data
    try:
        contents(bytes(whole))
    except OrcdbgError:
        return
