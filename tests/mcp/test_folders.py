"""Paths of an assistant lead below the named folders, or nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import UsageError
from orcdbg.mcp.folders import Folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, beside one that is nobody's business."""
    root = tmp_path / "dumps"
    (root / "below").mkdir(parents=True)
    (root / "below" / "core").write_text("x")
    (tmp_path / "secret").write_text("x")
    (root / "out").symlink_to(tmp_path)
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "gone").symlink_to(tmp_path / "nothing")
    (root / "in").symlink_to("below")
    return root


def test_files_below_are_named_from_the_folder_on_or_whole(root: Path) -> None:
    """Links are followed, as long as they stay inside."""
    folders = Folders([str(root)])
    core = str(root / "below" / "core")
    assert [folders.file(name) for name in ("below/core", core, "in/core", "below/../in/core")] == [core] * 4
    assert folders.folder("in") == str(root / "below")
    assert folders.file("below/core@0x1000") == f"{core}@0x1000"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../secret",
            "/etc/passwd",
            "/",
            "..",
            "out/secret",
            "file",
            "gone",
            "file@0x1000",
            "../secret@0",
            "/proc/kcore",
        ),
        *("-", "", "below", "nothing", "below/core\n", "below/core\0", "~/x", "below/core@x"),
    ],
)
def test_all_else_is_refused(root: Path, name: str) -> None:
    """Outside, links that lead out, what is no file, standard input."""
    with pytest.raises(UsageError):
        Folders([str(root)]).file(name)


def test_what_is_outside_is_refused_in_the_same_words_whether_it_is_there_or_not(root: Path) -> None:
    """Nobody learns what there is."""
    said = []
    for name in ("../secret", "../nothing"):
        with pytest.raises(UsageError) as refused:
            Folders([str(root)]).file(name)
        said.append(refused.value.message.replace(name, ""))
    assert said[0] == said[1]


def test_a_folder_named_alike_is_outside(root: Path) -> None:
    """`dumps2` is not below `dumps`."""
    (root.parent / "dumps2").mkdir()
    (root.parent / "dumps2" / "core").touch()
    with pytest.raises(UsageError):
        Folders([str(root)]).file("../dumps2/core")


def test_there_must_be_folders(tmp_path: Path) -> None:
    """None at all, and one that is not there."""
    for names in ([], [str(tmp_path / "nothing")]):
        with pytest.raises(UsageError):
            Folders(names)
