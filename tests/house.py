"""Does any decision of the product run on prose, or on a free string where a type should be? `make check` asks.

What a message says is for people, and what a thing is an enum's member or a type's instance says: else a better word in one
file changes what another does. So no expression of `orcdbg/` may compare with a sentence, and no attribute that says what
kind of thing something is may be compared with a string. mypy finds the comparison of an enum with a string; this finds the
attributes that are strings still.

Real text is compared as text: file formats' magic and names, symbols, sections, instructions, words of commands. Where that
looks like a decision on prose, it is listed below with the reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PRODUCT = Path(__file__).parents[1] / "orcdbg"

# Attributes and variables that say what a thing is, why, or how it went.
TELLING = frozenset(
    (
        *("kind", "source", "type", "row_type", "stack", "state", "status", "level", "mode", "mark", "holder", "owner"),
        *("end", "ended", "stopped_by", "by", "decided_by", "why", "doubt", "reason", "end_reason", "notes", "verdict"),
        *("sp_reg", "bp_reg", "base", "indirect", "mechanism", "text_from", "format", "severity", "outcome"),
    )
)

ALLOWED: Mapping[tuple[str, str], str] = {
    ("orcdbg/cli/output.py", "self.format == 'json'"): "the user's word for --format",
    ("orcdbg/repl/completion.py", "kind == 'frame'"): "commands, those of plug-ins too, name what their operands are",
    ("orcdbg/typed/catalog.py", "plain not in _SIZES"): "C's own names of integers, `long long` among them",
    ("orcdbg/formats/call_frame_row.py", "self.base == CFA"): "a register's name, or `cfa` in its place",
    ("orcdbg/expressions/evaluation.py", "root.type == '.'"): "pycparser's words, `.` or `->`, are those of C",
    ("orcdbg/target/session.py", "found.startswith('Linux version')"): "the kernel's banner",
    ("orcdbg/triage/cluster.py", "self._client.status != 'running'"): "Dask's own words",
    ("orcdbg/analysis/head.py", "task.state == 'UN'"): "crash's letters of a task's state",
    (
        "orcdbg/commands/sys.py",
        "line.startswith(_PANIC)",
    ): "what panic() prints, as /proc/kmsg and the kernel's users have it",
}
"""(file, expression): what text it compares; without the comparison in the file the line has to go."""

_SENTENCE = re.compile(r"[A-Za-z]{2,},? [A-Za-z]")
_TEXT_TESTS = ("startswith", "endswith", "find", "index", "count", "removeprefix", "removesuffix", "partition")


class Violation(NamedTuple):
    """An expression that decides by text."""

    path: str
    line: int
    expression: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}: {self.expression}"


class _Module:
    """One file, with the strings that its constants stand for."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text, path)
        self._constants: dict[str, ast.expr] = {}
        for statement in self.tree.body:
            for name, value in _assigned(statement):
                self._constants[name] = value

    def violations(self) -> Iterator[Violation]:
        """All of them, in order of line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Compare):
                yield from self._of_comparison(node)
            elif isinstance(node, ast.Call):
                yield from self._of_call(node)
            elif isinstance(node, ast.Match) and _tells(node.subject):
                patterns = [pattern for case in node.cases for pattern in ast.walk(case.pattern)]
                if any(isinstance(p, ast.MatchValue) and list(self._strings(p.value)) for p in patterns):
                    yield self._violation(node.subject, "a string tells what this is")

    def _of_comparison(self, node: ast.Compare) -> Iterator[Violation]:
        sides = [node.left, *node.comparators]
        if all(isinstance(side, ast.Tuple) for side in sides):
            rows = [side.elts for side in sides if isinstance(side, ast.Tuple)]
            if len({len(row) for row in rows}) == 1:
                for left, *others in zip(*rows, strict=True):
                    yield from self._of_comparison(_compared(node, left, others))
                return
        strings = [list(self._strings(side)) for side in sides]
        if any(_SENTENCE.search(text) for found in strings for text in found):
            yield self._violation(node, "compared with a sentence")
            return
        for first, second in zip(range(len(sides) - 1), range(1, len(sides)), strict=True):
            if (_tells(sides[first]) and strings[second]) or (_tells(sides[second]) and strings[first]):
                yield self._violation(node, "a string tells what this is")
                return

    def _of_call(self, node: ast.Call) -> Iterator[Violation]:
        """Tests of the beginning of a text, or of a part."""
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in _TEXT_TESTS:
            return
        texts = [text for argument in node.args for text in self._strings(argument)]
        if any(_SENTENCE.search(text) for text in texts):
            yield self._violation(node, "looked into for a sentence")
        elif texts and _tells(node.func.value):
            yield self._violation(node, "a string tells what this is")

    def _strings(self, node: ast.expr) -> Iterator[str]:
        """The strings that an expression is, or is a choice of; a constant of the module is what it was set to."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            for element in node.elts:
                yield from self._strings(element)
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                if key is not None:
                    yield from self._strings(key)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Name) and node.id in self._constants:
            value = self._constants[node.id]
            if not isinstance(value, ast.Name):
                yield from self._strings(value)

    def _violation(self, node: ast.expr, what: str) -> Violation:
        return Violation(self.path, node.lineno, ast.unparse(node), what)


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement of a module sets, each with its value."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
        yield statement.target.id, statement.value
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
            elif isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                for name, value in zip(target.elts, statement.value.elts, strict=False):
                    if isinstance(name, ast.Name):
                        yield name.id, value


def _compared(whole: ast.Compare, left: ast.expr, others: list[ast.expr]) -> ast.Compare:
    """One column of tuples that are compared."""
    return ast.copy_location(ast.Compare(left, whole.ops, others), whole)


def _tells(node: ast.expr) -> bool:
    """True for `x.kind`, `kind`, and either looked up or stripped on the way."""
    if isinstance(node, ast.Attribute):
        return node.attr in TELLING
    if isinstance(node, ast.Name):
        return node.id in TELLING
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _tells(node.func.value)
    return False


def violations_in(text: str, path: str = "planted.py") -> list[Violation]:
    """What one file's text does that it may not."""
    found = sorted(_Module(path, text).violations(), key=lambda violation: violation.line)
    return [violation for violation in found if (path, violation.expression) not in ALLOWED]


def product_violations() -> list[Violation]:
    """What the product does."""
    files = sorted(PRODUCT.rglob("*.py"))
    relative = {file: file.relative_to(PRODUCT.parent).as_posix() for file in files}
    return [found for file in files for found in violations_in(file.read_text(encoding="utf-8"), relative[file])]


def stale_permissions() -> list[tuple[str, str]]:
    """Entries of the list that allow what is nowhere."""
    there = set[tuple[str, str]]()
    for path in {path for path, _ in ALLOWED}:
        module = _Module(path, (PRODUCT.parent / path).read_text(encoding="utf-8"))
        there |= {(path, violation.expression) for violation in module.violations()}
    return sorted(set(ALLOWED) - there)


def main() -> int:
    """Lists them; 1 if there are any."""
    found, stale = product_violations(), stale_permissions()
    for violation in found:
        print(violation)
    for path, expression in stale:
        print(f"{path}: allowed, and not there: {expression}")
    return 1 if found or stale else 0


if __name__ == "__main__":
    sys.exit(main())
