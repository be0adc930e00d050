"""No loop over a snapshot's memory goes without a bound, and the check that says so sees one that does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import bounded_walks

LIST = """
def walk(linux, node):
    while node:
        node = {read}
"""


def found(source: str) -> list[str]:
    """What the check says of a module."""
    return [one.what for one in bounded_walks.findings_in(source, "planted.py")]


def test_the_house_has_no_such_loop() -> None:
    """And no leave that nothing needs."""
    assert bounded_walks.main([]) == 0


@pytest.mark.parametrize(
    "read",
    [
        "read_u64(linux.memory, node)",
        "linux.member('list_head', 'next', node)",
        "int.from_bytes(linux.memory.read(node, 8), 'little')",
        "following(linux, node)",
    ],
)
def test_a_while_loop_that_reads_memory_is_seen(read: str) -> None:
    """By whatever name it reads."""
    assert found(LIST.format(read=read)) == ["a while loop reads memory"]
    assert found(LIST.format(read="node.next")) == []


def test_a_loop_that_reads_by_another_function_is_seen() -> None:
    """The other function alone knows memory."""
    source = """
class Lists:
    def nodes(self, node):
        while node:
            yield node
            node = self._next(node)

    def _next(self, node):
        return self._far(node)

    def _far(self, node):
        return self.space.read(node, 8)
"""
    assert found(source) == ["a while loop reads memory"]


@pytest.mark.parametrize(
    ("loop", "what"),
    [
        ("for i in range(count): read_u64(memory, i)", "a loop over a range reads memory"),
        ("[read_u64(memory, i) for i in range(count)]", "a loop over a range reads memory"),
        ("for i in itertools.count(): read_u64(memory, i)", "itertools.count() in a function that reads memory"),
        ("list(iter(lambda: read_u64(memory, 8), 0))", "iter() with a sentinel in a function that reads memory"),
        ("walk(memory, read_u64(memory, count))", "a function that reads memory calls itself"),
        ("for i in range(MAX_NODES): read_u64(memory, i)", None),
        ("for i in range(min(count, 8)): read_u64(memory, i)", None),
        ("for i in range(len(data)): read_u64(memory, i)", None),
        ("for i in budget.entries(count, 0, 'x'): read_u64(memory, i)", None),
        ("for node in Chain(count, next_of, budget, 'x'): read_u64(memory, node)", None),
        ("for i in range(count): print(i)", None),
    ],
)
def test_each_kind_of_loop_is_told_from_bounded_ones(loop: str, what: str | None) -> None:
    """Planted, one each."""
    assert found(f"def walk(memory, count):\n    {loop}\n") == ([] if what is None else [what])


def test_sizes_that_memory_tells_are_seen() -> None:
    """In a read or a range, unless something bounds them."""
    source = (
        "def read_table(linux, at):\n    count = linux.member('s', 'count', at)\n    return linux.memory.read(at, {})\n"
    )
    assert found(source.format("count * 16")) == ["a read as large as memory says"]
    assert found(source.format("min(count, 9) * 16")) == []
    assert found("def f(linux):\n    n = read_u32(linux.memory, 8)\n    return list(range(n))\n") == [
        "a range as long as memory says"
    ]


def test_a_planted_loop_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `make check` runs it."""
    path = tmp_path / "planted.py"
    path.write_text(LIST.format(read="read_u64(linux.memory, node)"), encoding="utf-8")
    assert bounded_walks.main([str(path)]) == 1
    assert "planted.py:3: a while loop reads memory (walk)" in capsys.readouterr().out
