"""How does a user see that a command is still at work?

After 0.3 s a line on standard error says what runs and since when; it is gone before the answer comes. Only a terminal
gets it: logs stay as they are.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self, TextIO

from orcdbg.views.page import safe

DELAY = 0.3
INTERVAL = 0.5
_WIDTH = 60
ERASE = "\r\x1b[K"


class Waiting:
    """While entered, shows on a terminal how long `what` has been running.

    Args:
        what: the command's line.
        out: where to say so; nothing is written when it is no terminal.
    """

    def __init__(self, what: str, out: TextIO) -> None:
        shown = safe(what)
        self._what = shown if len(shown) <= _WIDTH else shown[: _WIDTH - 3] + "..."
        self._out = out
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._out.isatty():
            self._thread = threading.Thread(target=self._tick, args=(time.monotonic(),), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _tick(self, begun: float) -> None:
        wait, is_shown = DELAY, False
        while not self._done.wait(wait):
            self._out.write(f"{ERASE}orcdbg: {self._what} ... {time.monotonic() - begun:.0f} s")
            self._out.flush()
            wait, is_shown = INTERVAL, True
        if is_shown:
            self._out.write(ERASE)
            self._out.flush()
