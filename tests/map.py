"""Which modules are there, and which question does each answer? `make map` prints them."""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "orcdbg"


def first_line(path: Path) -> str:
    """The first line of a module's docstring, empty where it has none."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def main() -> None:
    """Prints each package's purpose, and under it each of its modules."""
    modules = sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name))
    for folder, paths in groupby(modules, lambda path: path.parent):
        print(f"{folder.relative_to(PACKAGE.parent).as_posix()}/  {first_line(folder / '__init__.py')}")
        for path in paths:
            if path.name != "__init__.py":
                print(f"    {path.name:28} {first_line(path)}")
        print()


if __name__ == "__main__":
    main()
