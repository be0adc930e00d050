"""The command line over a live guest: the same answers as over a snapshot, and it is let go whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orcdbg.cli.main import sample_files
from orcdbg.target.session import Session
from tests.build.stub import MachineStub, StubServer, answering
from tests.conftest import RunProgram


@pytest.fixture
def stub(sample: Session) -> MachineStub:
    """The sample's machine."""
    return MachineStub(sample.snapshot)


@pytest.fixture
def words(sample: Session, stub: MachineStub, tmp_path: Path) -> Iterator[list[str]]:
    """The command line that opens it."""
    place = sample.placement
    with StubServer(tmp_path, answering(stub.answer)) as server:
        yield [sample_files()[0], "--remote", f"unix:{server.path}",
               "--kaslr", str(place.slide), "--phys-base", str(place.phys_base)]  # fmt: skip


def test_a_live_guest_is_asked_like_a_snapshot(orcdbg_run: RunProgram, words: list[str], stub: MachineStub) -> None:
    """The same stack; only where its registers came from is another place."""
    asked = ("-e", "bt", "-e", "dis --diff lock_is_held_type 30", "-e", "ps")
    live, snapshot = orcdbg_run(*words, *asked), orcdbg_run("demo", *asked)
    assert (live[0], live[2]) == (0, "")
    assert live[1] == snapshot[1].replace("NT_PRSTATUS", "GDB stub")
    assert stub.log[-2:] == [b"Qqemu.PhyMemMode:0", b"D"]


def test_a_guest_runs_and_stops(orcdbg_run: RunProgram, words: list[str]) -> None:
    """Text and JSON say why and where, and all that was known is read anew."""
    status, out, err = orcdbg_run(*words, "-e", "continue", "-e", "bt")
    assert (status, err) == (0, "")
    assert out.startswith("stopped: breakpoint on CPU 0 at delay_tsc+0x31/0x80  ffffffff81277821\nPID: 135 ")
    assert "~#6 " in out
    found = json.loads(orcdbg_run(*words, "--format", "json", "-e", "continue --for 5")[1])["result"]
    assert (found["reason"], found["symbol"], found["offset"], found["pid"]) == ("breakpoint", "delay_tsc", 0x31, 135)


def test_a_guest_that_runs_has_no_stack(orcdbg_run: RunProgram, words: list[str]) -> None:
    """The error says how to stop it; what was seen before it ran is not shown again."""
    status, out, _ = orcdbg_run(
        *words, "--keep-going", "-e", "bt", "-e", "continue -b", "-e", "bt", "-e", "interrupt", "-e", "bt"
    )
    assert (status, out.count("#6 "), out.count("stopped: ")) == (1, 2, 1)
    status, out, err = orcdbg_run(*words, "-e", "continue --background", "-e", "rd linux_banner")
    assert (status, "`interrupt` stops it" in err, out) == (1, True, "the guest runs; `interrupt` stops it\n")


def test_the_guest_is_let_go_after_an_error(orcdbg_run: RunProgram, words: list[str], stub: MachineStub) -> None:
    """Of a command, and of the opening; and by `detach`."""
    assert orcdbg_run(*words, "-e", "bt 99999")[0] == 1
    assert stub.log[-1] == b"D"
    assert orcdbg_run(*words[:3], "--kaslr", "0x200000", "--phys-base", "0", "-e", "bt")[0] in (1, 4)
    assert stub.log[-1] == b"D"
    assert orcdbg_run(*words, "-e", "detach", "-e", "no such command")[0] == 0
    assert stub.log[-1] == b"D"


def test_a_guest_takes_the_place_of_the_snapshot(orcdbg_run: RunProgram) -> None:
    """One file, the vmlinux; and an address of this machine."""
    assert orcdbg_run(*sample_files(), "--remote", "unix:x", "-e", "bt")[0] == 2
    assert orcdbg_run(sample_files()[0], "--remote", "192.0.2.1:1", "-e", "bt")[0] == 2


@pytest.mark.parametrize("line", ["continue", "interrupt", "detach"])
def test_a_snapshot_does_not_run(orcdbg_run: RunProgram, line: str) -> None:
    """The hint says what would."""
    status, _, err = orcdbg_run("demo", "-e", line)
    assert status == 2
    assert "--remote" in err


@pytest.mark.parametrize("words", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_a_guest_runs_for_some_seconds(orcdbg_run: RunProgram, words: str) -> None:
    """More than none, at most a day."""
    assert orcdbg_run("demo", "-e", f"continue --for={words}")[0] == 2


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C reaches what a test starts, also where the tests run in a shell's background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 0)])
def test_a_signal_stops_the_run_and_lets_the_guest_go(
    sample: Session, stub: MachineStub, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """A guest that runs is stopped and left running; Ctrl-C ends the command alone, and the script goes on."""
    runs = threading.Event()

    def answer(question: bytes) -> bytes | None:
        if question == b"vCont;c":
            runs.set()
            return None
        return stub.answer(question)

    place = sample.placement
    with StubServer(tmp_path, answering(answer)) as server:
        words = [sample_files()[0], "--remote", f"unix:{server.path}", "--kaslr", str(place.slide),
                 "--phys-base", str(place.phys_base), "-e", "ps -A", "-e", "continue"]  # fmt: skip
        with subprocess.Popen([sys.executable, "-m", "orcdbg", *words], stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            while "cat" not in program.stdout.readline():
                pass
            assert runs.wait(60)
            program.send_signal(number)
            out = program.stdout.read()
            assert program.wait(20) == status
    assert ("stopped: interrupt" in out) == (number is signal.SIGINT)
    assert stub.log[-2:] == [b"Qqemu.PhyMemMode:0", b"D"]
