"""Is the map the land? ARCHITECTURE.md, the layers in setup.cfg, held to the code."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "orcdbg").rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """A file's name from the repository's top."""
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture
def page() -> str:
    """ARCHITECTURE.md."""
    return (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.fixture
def layers() -> list[str]:
    """The layers as import-linter knows them, from the top."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config["importlinter:contract:layers"]["layers"].split()


def test_the_map_has_the_layers_in_their_order(page: str, layers: list[str]) -> None:
    """The drawing follows setup.cfg."""
    drawing = page.partition("```text\n")[2].partition("```")[0]
    assert [f"orcdbg.{word}" for word in re.findall(r"(?m)^(\w+)", drawing)] == layers


def test_every_file_that_the_map_names_is_there(page: str) -> None:
    """Paths are those from the package's or the repository's top."""
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", page)
    assert len(named) > 20
    assert [path for path in named if not any((top / path).is_file() for top in (ROOT, ROOT / "orcdbg"))] == []


def test_every_type_that_the_map_names_is_there(page: str) -> None:
    """A bullet begins with the name of a class, and the file that has it."""
    classes = dict(re.findall(r"`([A-Z]\w+)` \(`([\w/]+\.py)`\)", page))
    assert len(classes) > 15
    texts = {name: (ROOT / "orcdbg" / path).read_text("utf-8") for name, path in classes.items()}
    assert [name for name, text in texts.items() if not re.search(rf"(?m)^(class {name}\b|{name} = )", text)] == []


def test_every_package_is_a_layer(layers: list[str]) -> None:
    """A package that no contract names would be bound by no arrow."""
    top = {path.stem if path.is_file() else path.name for path in (ROOT / "orcdbg").iterdir()}
    parts = {name for name in top if f"orcdbg.{name}" in layers}
    assert top - parts <= {"__init__", "__main__", "__pycache__", "py", "samples"}
    assert {f"orcdbg.{name}" for name in parts} == set(layers)


def test_every_package_is_shipped() -> None:
    """setup.cfg lists packages by name, so that a new one could be left behind."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    there = {name_of(path.parent).replace("/", ".") for path in MODULES if path.name == "__init__.py"}
    assert there - listed == set()


def without_docstring(body: list[ast.stmt], inside: str = "") -> Iterator[str]:
    """Public classes, functions and methods that do not say what they are for.

    The one line of a protocol (`...`) is explained by its class, and a method that overrides a library's by the library.
    """
    for node in body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and not _is_shape(node) and f"{inside}{node.name}" not in OVERRIDES:
            yield f"{inside}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from without_docstring(node.body, f"{node.name}.")


OVERRIDES = {"CommandParser.error", "CommandParser.exit"}


def _is_shape(node: ast.ClassDef | Function) -> bool:
    return len(node.body) == 1 and isinstance(node.body[0], ast.Expr) and _is_dots(node.body[0].value)


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_public_says_what_it_is_for(path: Path) -> None:
    """Modules, classes, functions, methods."""
    assert ast.get_docstring(tree_of(path)), "the module has no docstring"
    assert list(without_docstring(tree_of(path).body)) == []


def test_a_class_has_a_name_of_its_own() -> None:
    """One word, one meaning: who reads a name in one file knows it in all others."""
    files: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files.setdefault(node.name, []).append(name_of(path))
    shared = {name: paths for name, paths in files.items() if len(paths) > 1}
    assert shared == {}


READERS = sorted((ROOT / "orcdbg/snapshot/readers").glob("*.py"))


@pytest.mark.parametrize("path", READERS, ids=name_of)
def test_readers_of_snapshots_leave_bytes_to_formats(path: Path) -> None:
    """A reader says what a file's parts mean for a machine; taking the bytes apart is the work of `orcdbg/formats/`."""
    assert "struct" not in set(imported_by(path))
    methods = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert methods & {"from_bytes", "unpack", "unpack_from", "iter_unpack", "frombuffer"} == set()


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def imported_by(path: Path) -> Iterator[str]:
    """Every module that a file may import by its dotted name, `from package import module` too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            package = "." * node.level + (node.module or "")
            yield package
            yield from (f"{package}.{alias.name}" for alias in node.names)


def test_no_test_module_is_imported() -> None:
    """What several tests share stands in `tests/build/` or beside them under its own name, where all can change it."""
    modules = {name_of(path).removesuffix(".py").replace("/", ".") for path in TESTS}
    importing = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    borrowed = {name_of(path): modules.intersection(imported_by(path)) for path in importing}
    assert {name: found for name, found in borrowed.items() if found} == {}


# Where something is replaced that no argument reaches: cmd2 writes to sys.stdout, there is one /proc/kcore, and one
# list of the run's deaths.
REPLACING = {
    "tests/commands/test_writing.py",  # a file system that knows no files without a name
    "tests/repl/test_shell.py",
    "tests/snapshot/test_opening.py",
    "tests/lab/test_pieces.py",
}


def test_what_tests_replace_from_outside_is_known() -> None:
    """Else seams are arguments."""
    calls = {name_of(path): re.findall(r"monkeypatch\.setattr|mock\.patch", path.read_text("utf-8")) for path in TESTS}
    assert {name for name, replaced in calls.items() if replaced and name != "tests/test_architecture.py"} == REPLACING


def test_tests_import_by_full_name() -> None:
    """Else the test above would not see what they import."""
    relative = [(name_of(path), name) for path in TESTS for name in imported_by(path) if name.startswith(".")]
    assert relative == []
