"""Lines that are too long for a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orcdbg.views.page import Piece, fitted, line, plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", ["short"]),
        ("a  b  c", ["a  b  c"]),
        ("key: one two three", ["key: one two", "  three"]),
        ("a     one two three four", ["a     one two", "      three", "      four"]),
        ("          one two three", ["          one", "  two three"]),
        ("  one two three four", ["  one two", "    three four"]),
        ("averyverylongword", ["averyverylongword"]),
    ],
)
def test_what_does_not_fit_stands_under_the_second_column(text: str, expected: list[str]) -> None:
    """That is where the line's words are; without columns a little further in than the line."""
    assert plain(fitted([line(text)], 14)).splitlines() == expected


@given(st.lists(st.text(st.sampled_from("ab  "), min_size=1)), st.integers(4, 40))
def test_no_word_is_broken_or_lost(texts: list[str], width: int) -> None:
    """Whatever pieces a line has; and only a word of half the width and more makes a line too long."""
    pieces = [Piece(text) for text in texts]
    lines = plain(fitted([pieces], width)).splitlines()
    assert re.findall(r"\S+", " ".join(lines)) == re.findall(r"\S+", "".join(texts))
    assert all(len(found) <= width or len(found.split()[-1]) >= width // 2 for found in lines)


def test_without_a_width_lines_stay_as_they_are() -> None:
    """What is not for a terminal is not wrapped."""
    pieces = line("word " * 100)
    assert list(fitted([pieces], None)) == [pieces]
