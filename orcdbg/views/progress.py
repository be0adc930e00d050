"""How does a user see how far a long piece of work has come?

A line on standard error, of a terminal alone; it is gone before the answer comes.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

from orcdbg.views.page import safe
from orcdbg.views.waiting import DELAY, ERASE

INTERVAL = 0.2


class Progress:
    """While entered, shows on a terminal what `tell` was told last.

    Args:
        out: where; nothing is written when it is no terminal.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_shown = False
        self._begun = time.monotonic()
        self._next = self._begun + DELAY

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._begun

    def tell(self, words: str) -> None:
        """Shows how far it is; not more often than anybody reads."""
        now = time.monotonic()
        if now < self._next or not self._out.isatty():
            return
        self._next = now + INTERVAL
        self._is_shown = True
        self._out.write(f"{ERASE}orcdbg: {safe(words)}")
        self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            self._out.write(ERASE)
            self._out.flush()
