"""Which part of a long answer is shown, and how is the next one asked for?"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from orcdbg.base.errors import NotFound
from orcdbg.mcp.messages import Question

MAX_KEPT = 16
"""Long answers whose further pages can be asked for; with `MAX_ANSWER` characters each, the server stays below 256 MiB."""
_CURSOR = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)


class PagedAnswer(NamedTuple):
    """Whose answer a page is of: the snapshot's handle, and what it was asked."""

    snapshot: str
    question: Question


class AnswerPage(NamedTuple):
    """A part of an answer.

    Attributes:
        text: what is in it.
        start: where it begins, in characters of the answer.
        total: characters of the answer.
        cursor: what asks for the next page; None at the answer's end.
    """

    text: str
    start: int
    total: int
    cursor: str | None


class AnswerPages:
    """Answers in pages, the newest long ones kept.

    Args:
        size: characters of a page.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._next = 1
        self._kept: OrderedDict[int, tuple[str, PagedAnswer]] = OrderedDict()

    def first(self, text: str, answer: PagedAnswer) -> AnswerPage:
        """The first page of a new answer."""
        if len(text) <= self._size:
            return AnswerPage(text, 0, len(text), None)
        number = self._next
        self._next += 1
        self._kept[number] = text, answer
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return self._cut(number, text, 0)

    def at(self, cursor: str) -> tuple[AnswerPage, PagedAnswer]:
        """The page that a cursor asks for, and of which answer it is.

        Raises:
            NotFound: the cursor is none, or its answer is no longer kept.
        """
        match = _CURSOR.fullmatch(cursor)
        number, start = (int(match[1]), int(match[2])) if match else (0, 0)
        if number not in self._kept:
            raise NotFound("page", cursor, "run the command again")
        text, answer = self._kept[number]
        if not 0 < start < len(text):
            raise NotFound("page", cursor, "run the command again")
        self._kept.move_to_end(number)
        return self._cut(number, text, start), answer

    def forget(self, snapshot: str) -> None:
        """Drops a snapshot's answers."""
        for number in [number for number, (_, answer) in self._kept.items() if answer.snapshot == snapshot]:
            del self._kept[number]

    def _cut(self, number: int, text: str, start: int) -> AnswerPage:
        end = start + self._size
        if end >= len(text):
            return AnswerPage(text[start:], start, len(text), None)
        # At a line's end, where there is one in the page's second half.
        line = text.rfind("\n", start + self._size // 2, end)
        end = end if line < 0 else line + 1
        return AnswerPage(text[start:end], start, len(text), f"{number}-{end}")
