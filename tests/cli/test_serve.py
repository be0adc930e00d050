"""`orcdbg serve` and `orcdbg gdb-plugin`, from the command line."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orcdbg.gdb.packets import PacketReader, encode_packet
from tests.conftest import RunProgram


def ask(connection: socket.socket, question: bytes) -> bytes:
    """A packet's answer."""
    reader = PacketReader()
    connection.sendall(encode_packet(question))
    while True:
        reader.feed(connection.recv(65536))
        while (arrived := reader.take()) is not None:
            if arrived.payload:
                return arrived.payload


def test_a_snapshot_is_served_until_the_server_is_ended(tmp_path: Path) -> None:
    """One client after another, on a socket that nobody else may use, and that is gone afterwards."""
    path = tmp_path / "socket"
    with subprocess.Popen(
        [sys.executable, "-m", "orcdbg", "serve", "demo", "--listen", f"unix:{path}"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert line == f"orcdbg: 42 threads on unix:{path}; in gdb: target remote {path}\n"
        assert path.stat().st_mode & 0o777 == 0o600
        for question, answer in ((b"?", b"T05thread:87;"), (b"qC", b"QC87")):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(str(path))
                assert ask(connection, question) == answer
        time.sleep(0.1)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 128 + signal.SIGTERM
    assert not path.exists()


def test_what_has_the_sockets_name_by_then_stays(tmp_path: Path) -> None:
    """The server removes what it made, and nothing else."""
    path = tmp_path / "socket"
    with subprocess.Popen(
        [sys.executable, "-m", "orcdbg", "serve", "demo", "--listen", f"unix:{path}"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        assert server.stderr.readline().startswith("orcdbg: 42 threads")
        path.unlink()
        path.write_text("precious")
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 128 + signal.SIGTERM
    assert path.read_text() == "precious"


def test_only_this_machine_is_served(orcdbg_run: RunProgram) -> None:
    """Other addresses are refused before anything is opened."""
    assert orcdbg_run("serve", "demo", "--listen", "0.0.0.0:1234")[0] == 2


def test_a_socket_that_is_there_is_not_taken(orcdbg_run: RunProgram, tmp_path: Path) -> None:
    """Somebody may be listening."""
    path = tmp_path / "socket"
    path.touch()
    status, _, err = orcdbg_run("serve", "--listen", f"unix:{path}")
    assert (status, "is there already" in err) == (1, True)


@pytest.mark.parametrize(
    "words", [("serve", "demo", "-e", "bt"), ("demo", "--listen", "unix:x"), ("serve", "--remote", "unix:x")]
)
def test_words_that_do_not_go_together(orcdbg_run: RunProgram, words: tuple[str, ...]) -> None:
    """Usage."""
    assert orcdbg_run(*words)[0] == 2


def test_the_extension_for_gdb_is_named(orcdbg_run: RunProgram) -> None:
    """By its path, for `source`."""
    status, out, _ = orcdbg_run("gdb-plugin")
    assert status == 0
    assert Path(out.strip()).name == "orcdbg_gdb.py"
    assert Path(out.strip()).is_file()
