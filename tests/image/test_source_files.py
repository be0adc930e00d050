"""The text of source files, and everything that would lead out of their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orcdbg.base.errors import NotFound, OrcdbgError, UnsupportedFormat, UsageError
from orcdbg.image.source_files import MAX_FILE, MAX_LINE, SourceFolders


def test_lines_are_those_that_a_compiler_counts(tmp_path: Path) -> None:
    """A form feed ends none, tabs are blanks, a long line is cut, and bytes that are no text cost nothing."""
    (tmp_path / "a.c").write_bytes(b"one\r\n\ttwo\x0c\xff\n" + b"x" * 1000 + b"\n")
    lines = SourceFolders([str(tmp_path)]).lines("a.c")
    assert lines == ["one", "        two\x0c\N{REPLACEMENT CHARACTER}", "x" * MAX_LINE]


def test_the_first_folder_that_has_a_file_counts(tmp_path: Path) -> None:
    """And one that nobody has says so."""
    for name in ("first", "second"):
        (tmp_path / name / "kernel").mkdir(parents=True)
        (tmp_path / name / "kernel" / f"{name}.c").write_text(name)
        (tmp_path / name / "both.c").write_text(name)
    folders = SourceFolders([str(tmp_path / "first"), str(tmp_path / "second")])
    assert folders.lines("kernel/second.c") == ["second"]
    assert folders.lines("both.c") == ["first"]
    with pytest.raises(NotFound):
        folders.lines("kernel/third.c")
    with pytest.raises(UsageError):
        SourceFolders([str(tmp_path / "none")])


@pytest.mark.parametrize(
    "name", ["../secret", "kernel/../../secret", "{}/secret", "link", "folder/secret", "a\0b", "loop", "", "."]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """By dots, from the root, or through links; nor does one that is no file do harm."""
    (tmp_path / "secret").write_text("secret")
    tree = tmp_path / "tree"
    (tree / "kernel").mkdir(parents=True)
    (tree / "link").symlink_to(tmp_path / "secret")
    (tree / "folder").symlink_to(tmp_path)
    (tree / "loop").symlink_to(tree / "loop")
    with pytest.raises(OrcdbgError):
        SourceFolders([str(tree)]).lines(name.format(tmp_path))


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    """The kernel's tree has some; the folder itself may be one."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "real.c").write_text("text\n")
    (tmp_path / "tree" / "other.c").symlink_to("real.c")
    (tmp_path / "linux").symlink_to("tree")
    assert SourceFolders([str(tmp_path / "linux")]).lines("other.c") == ["text"]


def test_what_is_no_source_file_is_refused(tmp_path: Path) -> None:
    """A pipe, which nobody writes to, a folder, and more than any source."""
    os.mkfifo(tmp_path / "pipe.c")
    (tmp_path / "folder.c").mkdir()
    (tmp_path / "large.c").touch()
    os.truncate(tmp_path / "large.c", MAX_FILE + 1)
    for name in ("pipe.c", "folder.c", "large.c"):
        with pytest.raises(UnsupportedFormat):
            SourceFolders([str(tmp_path)]).lines(name)
