"""Is an answer too long for the screen, and how is it shown then?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def rows(text: str, columns: int) -> int:
    """How many rows of a terminal the text fills."""
    lengths = (len(_STYLE.sub("", line)) for line in text.splitlines())
    return sum(max(-(-length // max(columns, 1)), 1) for length in lengths)


def is_too_long(text: str, screen: os.terminal_size) -> bool:
    """True when the text, the prompt and the toolbar do not fit on the screen together."""
    return rows(text, screen.columns) > screen.lines - 2


def find_pager() -> list[str] | None:
    """The pager's words, None where there is no `less`: it keeps colours (-R) and what it showed on the screen (-X)."""
    less = shutil.which("less")
    return None if less is None else [less, "-RFX"]


def page(pager: list[str], text: str) -> None:
    """Shows the text in a pager and returns when the user has left it."""
    with subprocess.Popen(pager, stdin=subprocess.PIPE, text=True, encoding="utf-8", errors="replace") as process:
        process.communicate(text)
