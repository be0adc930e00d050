"""`python -m orcdbg` in a folder that somebody else filled: nothing in it is run."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from orcdbg.__main__ import leave_folder

SOURCES = Path(__file__).parents[2]
LIBRARIES = ("numpy", "capstone", "rich", "cmd2", "prompt_toolkit", "zstandard", "cramjam", "lzallright", "unicorn")
SHOW_MODULES = "import sys\nprint(*{name.partition('.')[0] for name in sys.modules})\n"
CRIME = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder; orcdbg is found by the environment's own means."""
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def modules_of_python_itself(tmp_path: Path) -> set[str]:
    """What `python -m` has imported before the first line of a program runs; nobody but Python can keep that safe."""
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "nothing.py").write_text(SHOW_MODULES)
    return set(python(folder, "-m", "nothing").stdout.split())


@pytest.mark.parametrize("words", [["-e", "bt"], ["-e", "dis schedule 2"], ["--format", "json", "-e", "log"]])
def test_no_module_of_the_current_folder_is_run(tmp_path: Path, words: list[str]) -> None:
    """Every name is taken that Python's own library has, or a library that orcdbg uses."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    names = (sys.stdlib_module_names | set(LIBRARIES)) - modules_of_python_itself(tmp_path)
    assert {"numpy", "capstone", "argparse", "json", "gettext"} <= names
    for name in names:
        (folder / f"{name}.py").write_text(CRIME)
    outcome = python(folder, "-m", "orcdbg", "demo", *words)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert sorted(folder.glob("*.ran")) == []


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_nothing_is_imported_while_the_current_folder_is_on_the_path(name: str) -> None:
    """Python runs these two then; a name of its own library that it had not needed yet would be looked for there."""
    tree = ast.parse((SOURCES / "orcdbg" / name).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == (["import sys"] if name == "__main__.py" else [])


def test_no_plug_in_of_the_current_folder_is_loaded(tmp_path: Path) -> None:
    """A folder beside it that says it is an installed distribution is none."""
    (tmp_path / "evil.py").write_text(CRIME + "def register(api):\n    pass\n")
    info = tmp_path / "orcdbg_evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: orcdbg-evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[orcdbg.plugins]\nevil = evil:register\n")
    outcome = python(tmp_path, "-m", "orcdbg", "demo", "-e", "bt")
    assert (outcome.returncode, outcome.stderr, (tmp_path / "evil.ran").exists()) == (0, "", False)


def test_a_checkout_is_run_from_its_own_folder() -> None:
    """Where the current folder is the one that orcdbg itself comes from."""
    outcome = python(SOURCES, "-m", "orcdbg", "demo", "-e", "sym schedule")
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_only_what_python_put_there_leaves_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what PYTHONPATH names, and nothing where Python was told to be safe."""
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path.resolve())
    for before, safe, after in (
        ([here, "/lib"], False, ["/lib"]),
        (["", "/lib"], False, ["/lib"]),
        ([here, here, "/lib"], False, [here, "/lib"]),
        ([here, "/lib"], True, [here, "/lib"]),
        (["/lib", here], False, ["/lib", here]),
        ([], False, []),
    ):
        path = list(before)
        leave_folder(path, safe)
        assert path == after


def test_a_folder_that_is_gone_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows its name then."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    path = ["", "/lib"]
    leave_folder(path, False)
    assert path == ["/lib"]
