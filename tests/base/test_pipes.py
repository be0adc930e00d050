"""A named pipe is waited for, and whoever waits says so."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest

from orcdbg.base import pipes


@pytest.fixture
def pipe(tmp_path: Path) -> str:
    """A named pipe."""
    os.mkfifo(tmp_path / "pipe")
    return str(tmp_path / "pipe")


def test_a_pipe_without_a_writer_is_waited_for_with_a_word(pipe: str, caplog: pytest.LogCaptureFixture) -> None:
    """Once; then all that the writer writes is read, however long it takes over it."""

    def write() -> None:
        while not caplog.messages:
            time.sleep(0.01)
        with open(pipe, "wb") as stream:
            for _ in range(3):
                stream.write(b"x" * 100_000)
                stream.flush()
                time.sleep(0.05)

    with caplog.at_level(logging.WARNING):
        writer = threading.Thread(target=write)
        writer.start()
        with pipes.open_for_reading(pipe, patience=0.01) as stream:
            data = stream.read()
        writer.join()
    assert data == b"x" * 300_000
    assert caplog.messages == [f"orcdbg: {pipe} is a pipe, and no program writes into it yet: waiting"]


def test_a_pipe_with_a_writer_is_read_without_a_word(pipe: str, caplog: pytest.LogCaptureFixture) -> None:
    """As the shell makes them."""
    writer = threading.Thread(target=Path(pipe).write_bytes, args=(b"abc",))
    writer.start()
    with pipes.open_for_reading(pipe) as stream:
        assert stream.read() == b"abc"
    writer.join()
    assert not caplog.messages


def test_a_plain_file_is_opened_as_ever(tmp_path: Path) -> None:
    """And an error is the system's."""
    (tmp_path / "file").write_bytes(b"abc")
    with pipes.open_for_reading(str(tmp_path / "file")) as stream:
        assert stream.read() == b"abc"
    with pytest.raises(FileNotFoundError):
        pipes.open_for_reading(str(tmp_path / "none"))
