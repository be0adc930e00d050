"""list and dis -s over the sample, with debugging information made for its first function and a source tree made for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.cli.main import sample_files
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.list import ListNodes
from orcdbg.commands.registry import Registry
from orcdbg.commands.source_text import SourceText
from orcdbg.image.source_files import SourceFolders
from orcdbg.target.opening import open_session
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import lines_of
from orcdbg.views.page import plain
from tests.build.debug_files import by_build_id, debug_file, put
from tests.build.dwarf import DECLARED
from tests.conftest import RunProgram


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample: Session) -> Path:
    """Debugging information of the sample's build: at the image's start it has `outer` of made.c."""
    made = tmp_path_factory.mktemp("debug")
    build_id = sample.image.build_id
    assert build_id is not None
    put(by_build_id(made, build_id), debug_file(bytes.fromhex(build_id)))
    return made


@pytest.fixture(scope="module")
def described(folder: Path) -> Session:
    """The sample with it."""
    return open_session(*sample_files(), debug_folders=[str(folder)])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree whose made.c is the build's."""
    put(
        tmp_path / "made.c",
        "".join(f"{'int outer(void)' if n == DECLARED else f'line {n}'}\n" for n in range(1, 31)).encode(),
    )
    put(tmp_path / "include" / "made.h", "".join(f"header {n}\n" for n in range(1, 41)).encode())
    return tmp_path


def run(registry: Registry, session: Session, line: str, tree: Path | None) -> SourceText:
    """The answer to a line."""
    debugger = Debugger(session)
    debugger.source_folders = None if tree is None else SourceFolders([str(tree)])
    found = registry.run(debugger, line)
    assert isinstance(found, SourceText)
    return found


def test_a_function_is_listed_around_its_beginning(registry: Registry, described: Session, tree: Path) -> None:
    """As in gdb, ten lines, or as many as are asked for; the line itself has an arrow."""
    found = run(registry, described, "list startup_64", tree)
    assert (found.place.file, found.place.line, found.first) == ("made.c", 10, 5)
    assert list(found.lines) == [f"line {n}" if n != DECLARED else "int outer(void)" for n in range(5, 15)]
    assert not found.problems
    text = plain(lines_of(found, None)).splitlines()
    assert text[0].startswith("made.c:10  startup_64+0x0/")
    assert [line for line in text if line.startswith(">")] == [">10  line 10"]
    assert list(run(registry, described, "list startup_64 --limit 1", tree).lines) == ["line 10"]


def test_an_address_is_listed_in_the_innermost_function(registry: Registry, described: Session, tree: Path) -> None:
    """With those that it is inlined in."""
    found = run(registry, described, "list *startup_64+0x30", tree)
    assert (found.place.file, found.place.line) == ("include/made.h", 33)
    assert "header 33" in found.lines
    assert "[inlined] inner at include/made.h:33" in plain(lines_of(found, None))
    assert encode(found)["inlined"][0]["symbol"] == "inner"


def test_a_line_is_listed_without_any_debugging_information(registry: Registry, sample: Session, tree: Path) -> None:
    """By its file's path in the tree; a line that is not there says how many there are."""
    found = run(registry, sample, "list include/made.h:2 --limit 4", tree)
    assert (found.first, list(found.lines)) == (1, [f"header {n}" for n in range(1, 5)])
    assert found.position is None
    for wrong in ("list made.c:99", "list made.c:0", "list none.c:1", "list ../made.c:1", f"list {tree}/made.c:1"):
        with pytest.raises(NotFound):
            run(registry, sample, wrong, tree)
    with pytest.raises(UsageError, match="no source files"):
        run(registry, sample, "list made.c:1", None)


def test_the_source_of_a_function_is_cut_at_an_address(registry: Registry, described: Session, tree: Path) -> None:
    """From the line that names it to its last; with -r up to the address's, with -f from that on; or so many lines."""
    expected = ["int outer(void)", "line 10", "line 11", "line 12"]
    assert list(run(registry, described, "dis -s startup_64", tree).lines) == expected[:3]
    assert list(run(registry, described, "dis -s -r startup_64", tree).lines) == expected[:2]
    assert list(run(registry, described, "dis -s -f startup_64", tree).lines) == expected[1:3]
    assert list(run(registry, described, "dis -s startup_64 1", tree).lines) == expected[:1]
    last = run(registry, described, "dis -s -r startup_64 1", tree)
    assert (last.first, list(last.lines)) == (10, expected[1:2])


def test_without_a_tree_the_line_is_told(registry: Registry, described: Session, sample: Session) -> None:
    """And how its text is had; without debugging information there is no line."""
    found = run(registry, described, "list startup_64", None)
    assert (found.place.line, list(found.lines)) == (10, [])
    assert "--source DIR" in found.problems[0]
    with pytest.raises(NotFound) as caught:
        run(registry, sample, "list startup_64", None)
    assert "no debugging information" in str(caught.value.hint)


def test_a_tree_of_another_version_is_doubted(registry: Registry, described: Session, tmp_path: Path) -> None:
    """Where the function's line does not name it, or the file ends before."""
    put(tmp_path / "made.c", b"static int other(void)\n" * 30)
    assert "does not name outer" in run(registry, described, "list startup_64", tmp_path).problems[0]
    put(tmp_path / "made.c", b"short\n")
    assert "another version" in run(registry, described, "list startup_64", tmp_path).problems[0]


def test_what_the_words_are_decides_between_lists_and_source(registry: Registry, described: Session) -> None:
    """Data is crash's list, as ever; a function is none, also where an option says that it is."""
    assert isinstance(registry.run(Debugger(described), "list -h -o task_struct.tasks init_task --limit 2"), ListNodes)
    for wrong in ("list -H startup_64", "list -s list_head startup_64", "list startup_64 --limit 0"):
        with pytest.raises(UsageError):
            registry.run(Debugger(described), wrong)


def test_text_never_reaches_the_terminal_raw(orcdbg_run: RunProgram, folder: Path, tree: Path) -> None:
    """Nor does the command line take a folder that is none."""
    put(tree / "made.c", b"\x1b]0;title\x07 outer\n" * 30)
    words = ("demo", "--debug-dir", str(folder), "--source", str(tree), "-e", "list startup_64")
    status, out, _ = orcdbg_run(*words)
    assert status == 0
    assert "\\x1b]0;title\\x07" in out
    assert "\x1b" not in out
    assert orcdbg_run("demo", "--source", str(tree / "none"), "-e", "sys")[0] == 2
