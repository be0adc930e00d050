"""The names that are found for a mistyped word are those that a plain look at each of them finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.base.errors import NotFound, OrcdbgError
from orcdbg.base.near_names import did_you_mean, find_near, near_names

LETTERS = st.text("ab_cA", min_size=1, max_size=12)


def errors_between(first: str, second: str) -> int:
    """Letters left out, added, changed, or swapped with the next, none touched twice: one cell after the other."""
    rows: list[list[int]] = [[*range(len(second) + 1)]]
    for i, one in enumerate(first, 1):
        rows.append([i] + [0] * len(second))
        for j, two in enumerate(second, 1):
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (one != two))
            if i > 1 and j > 1 and (one, first[i - 2]) == (second[j - 2], two):
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


@given(st.text("ab_c", min_size=3, max_size=14), st.lists(LETTERS, max_size=30))
def test_names_with_few_errors_are_those_of_a_plain_comparison(word: str, names: list[str]) -> None:
    """Whatever stands behind each other in the table, and with the same number of errors."""
    strings = "".join(f"{name}\0" for name in names).encode() or b"\0"
    starts = np.cumsum([0, *(len(name) + 1 for name in names)])[: len(names)].astype(np.int64)
    most = max(1, min(2, len(word) // 4))
    expected = {(float(errors_between(word.lower(), name.lower())), name) for name in names}
    found = {
        (near.distance, near.name) for near in find_near(word, strings, starts) if near.distance == int(near.distance)
    }
    assert found == {(distance, name) for distance, name in expected if distance <= most}


@pytest.mark.parametrize(
    ("word", "names", "found"),
    [
        ("init_tsk", ["init_task", "initrd", "init_mm"], ["init_task"]),
        ("inti_task", ["init_task"], ["init_task"]),
        ("INIT_TASK", ["init_task"], ["init_task"]),
        ("do_sys_open", ["do_sys_openat2", "do_sys_poll"], ["do_sys_openat2"]),
        (
            "sys_clone",
            ["__x64_sys_clone", "csys_clone", "xsys_clones"],
            ["csys_clone", "__x64_sys_clone"],
        ),
        (
            "schedul",
            ["schedule", "schedule_idle", "scheduler", "schedule_tail_of"],
            ["schedule", "scheduler", "schedule_idle"],
        ),
        ("ab", ["abc"], []),
        ("0x1234", ["0x12345"], []),
        ("x" * 65, ["x" * 66], []),
        ("name", [], []),
        ("größe", ["größen"], ["größen"]),
        ("", ["a"], []),
    ],
)
def test_what_somebody_may_have_meant(word: str, names: list[str], found: list[str]) -> None:
    """At most three, the nearest first; words too short or long to tell, and numbers, have none."""
    assert near_names(word, names) == found


def test_a_hint_lists_names_as_people_do() -> None:
    """One, two, three, or no hint at all."""
    assert did_you_mean([]) is None
    assert did_you_mean(["bt"]) == "did you mean bt?"
    assert did_you_mean(["bt", "rd"]) == "did you mean bt or rd?"
    assert did_you_mean(["bt", "rd", "ps"]) == "did you mean bt, rd or ps?"


def test_a_hint_is_looked_for_when_somebody_reads_it_and_once() -> None:
    """An error that is caught and forgotten costs no search."""
    asked: list[int] = []

    def search() -> str:
        asked.append(1)
        return "did you mean bt?"

    error = NotFound("command", "btt", search)
    assert asked == []
    assert (error.hint, error.hint) == ("did you mean bt?", "did you mean bt?")
    assert asked == [1]


def test_names_that_cannot_be_read_are_no_hint() -> None:
    """The error is said without one."""

    def search() -> str:
        raise OrcdbgError("not in the snapshot")

    assert NotFound("symbol", "x", search).hint is None
