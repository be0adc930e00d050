"""What if a standard stream is closed, cannot write a character, or has no room?

A program may be started without any of the three, on a terminal whose encoding is ASCII, or with its output going onto a full
disk.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


def make_streams_sound() -> None:
    """Gives the process all three standard streams, and output ones that write every character in some way.

    Without this Python has None for a closed one, and the next file that is opened gets its number: the output would go there.
    """
    # In the order of their numbers: each takes the lowest that is free.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115  it lasts as long as the process
    if sys.stdout is None:
        sys.stdout = _closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _closed() -> TextIO:
    """A stream that nothing can be written to, as a closed one is: who asks for an answer has to know that it went nowhere."""
    return os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")


def drop_output() -> None:
    """Sends what is still to be written nowhere: after an error of writing, the same one would come again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
