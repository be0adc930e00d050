"""Long answers come in pages that together are the answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import NotFound
from orcdbg.mcp.messages import Form, Question
from orcdbg.mcp.pages import MAX_KEPT, AnswerPages, PagedAnswer

ASKED = PagedAnswer("s1", Question("bt", Form.TEXT))


@settings(max_examples=50)
@given(st.text(alphabet="ab\n", max_size=60), st.integers(1, 20))
def test_pages_together_are_the_answer(text: str, size: int) -> None:
    """None is empty or too long, and the first says how long the answer is."""
    pages = AnswerPages(size)
    page = pages.first(text, ASKED)
    shown = [page]
    while page.cursor is not None:
        page, asked = pages.at(page.cursor)
        assert asked == ASKED
        shown.append(page)
    assert "".join(page.text for page in shown) == text
    assert all(0 < len(page.text) <= size for page in shown) or text == ""
    assert {page.total for page in shown} == {len(text)}


def test_a_page_ends_with_a_line_where_it_can() -> None:
    """In its second half."""
    assert AnswerPages(10).first("123456\n890123", ASKED).text == "123456\n"
    assert AnswerPages(10).first("12\n4567890123", ASKED).text == "12\n4567890"


@pytest.mark.parametrize("cursor", ["", "1", "1-0", "1-99", "2-10", "x", "1-10 ", "-1-10"])
def test_no_other_cursor_is_taken(cursor: str) -> None:
    """Nor one of an answer that is not kept."""
    pages = AnswerPages(10)
    assert pages.first("x" * 30, ASKED).cursor == "1-10"
    with pytest.raises(NotFound):
        pages.at(cursor)


def test_so_many_are_kept_and_those_of_a_closed_snapshot_are_not() -> None:
    """The oldest goes first."""
    pages = AnswerPages(10)
    cursors = [pages.first("x" * 30, ASKED).cursor or "" for _ in range(MAX_KEPT + 1)]
    assert pages.at(cursors[1])[0].text == "x" * 10
    with pytest.raises(NotFound):
        pages.at(cursors[0])
    pages.forget("s1")
    with pytest.raises(NotFound):
        pages.at(cursors[1])
