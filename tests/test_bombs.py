"""Small files that were made to take all of memory, or hours, take neither: those of `python -m tests.bombs` that are quick."""

from __future__ import annotations

import subprocess
import sys

from tests.bombs import BOMBS

SLOW = {"packed-xz", "packed-lz4", "packed-lzop", "dwarf-ranges", "journal"}


def test_bombs_end_within_bounds() -> None:
    """In a process of its own, which looks at its own time and memory after each."""
    words = [sys.executable, "-m", "tests.bombs", *(name for name in BOMBS if name not in SLOW)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(BOMBS) - len(SLOW)
