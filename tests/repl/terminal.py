"""A terminal for tests: runs orcdbg behind a pty and keeps its screen, answering what a terminal is asked."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pexpect
import pyte

ENTER, TAB = "\r", "\t"
CTRL_C, CTRL_D, CTRL_L, CTRL_R, CTRL_U = "\x03", "\x04", "\x0c", "\x12", "\x15"
PATIENCE = 20.0
SOURCES = Path(__file__).resolve().parents[2]


class _Screen(pyte.Screen):
    """A screen that answers: without knowing where the cursor is, prompt_toolkit draws no toolbar."""

    child: Any = None

    def write_process_input(self, data: str) -> None:
        self.child.send(data)


class Terminal:
    """orcdbg on a terminal of `columns` times `lines`; `raw` is everything that it wrote."""

    def __init__(
        self, arguments: Sequence[str], columns: int, lines: int, home: Path, more_environment: dict[str, str]
    ) -> None:
        environment = {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCES),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/sh",
            **more_environment,
        }
        self.raw = ""
        self._screen = _Screen(columns, lines)
        self._stream = pyte.Stream(self._screen)
        self._child = pexpect.spawn(
            sys.executable,
            ["-m", "orcdbg", *arguments],
            env=environment,
            dimensions=(lines, columns),
            encoding="utf-8",
            cwd=str(home),
        )
        self._child.delaybeforesend = None
        self._screen.child = self._child

    @property
    def lines(self) -> list[str]:
        """The screen's lines, without trailing blanks and without the empty ones."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(self.lines)

    @property
    def input_line(self) -> str:
        """The line that the cursor is in."""
        return str(self._screen.display[self._screen.cursor.y]).rstrip()

    def send(self, keys: str) -> None:
        """Presses keys."""
        self._child.send(keys)

    def run(self, line: str, wanted: str) -> str:
        """Types a line on an empty screen, waits for `wanted` and the next prompt; the screen's text."""
        self.start_over()
        self.send(line + ENTER)
        self.wait(wanted)
        return self.wait_for_prompt()

    def start_over(self) -> None:
        """Empties the line and the screen, as soon as there is a prompt that takes keys."""

        def is_empty() -> bool:
            self.send(CTRL_U + CTRL_L)
            self._read()
            return self._screen.cursor.y == 0 and self.input_line.endswith("orcdbg>")

        self._until(is_empty, "an empty screen")

    def wait(self, wanted: str) -> str:
        """Reads until `wanted` is on the screen; the screen's text."""
        return self._until(lambda: wanted in self.text, wanted)

    def wait_for_prompt(self, prompt: str = "orcdbg>") -> str:
        """Reads until the cursor is in an empty line of input; the screen's text."""
        return self._until(lambda: self.input_line.endswith(prompt), prompt)

    def wait_for_command(self) -> None:
        """Waits until a long command runs: the terminal has echoed for a while, as it does not at a prompt."""

        def is_running() -> bool:
            echoed = self._child.getecho()
            time.sleep(0.3)
            return bool(echoed and self._child.getecho())

        self._until(is_running, "a running command")

    def wait_for_end(self) -> int:
        """Reads until orcdbg has left; its exit status."""
        self._until(lambda: not self._read(), "the end")
        self._child.close()
        return -1 if self._child.exitstatus is None else int(self._child.exitstatus)

    def close(self) -> None:
        """Ends orcdbg, whatever it does."""
        self._child.kill(signal.SIGKILL)
        self._child.close(force=True)

    def _until(self, holds: Any, wanted: str) -> str:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, f"{wanted!r} did not come; the screen:\n{self.text}"
            self._read()
        return self.text

    def _read(self) -> bool:
        """Takes in what came; False when nothing will come any more."""
        try:
            data = self._child.read_nonblocking(65536, timeout=0.2)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True
