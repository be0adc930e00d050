"""A machine behind a stub is like a snapshot; a stub that lies, stalls or goes away is an error in time."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import NotFound, NotInSnapshot, OrcdbgError, RemoteError
from orcdbg.gdb.endpoint import Endpoint
from orcdbg.gdb.guest import Guest
from orcdbg.gdb.packets import encode_packet
from orcdbg.gdb.stops import BreakKind, GuestStop, StopReason
from orcdbg.target.session import Session
from tests.build.stub import Answer, Connect, MachineStub, StubServer, answering

SECONDS = 1.0  # for one answer of a stub that gives none


@pytest.fixture
def stub(sample: Session) -> MachineStub:
    """The sample's machine."""
    return MachineStub(sample.snapshot)


@contextmanager
def connected(folder: Path, talk: Connect) -> Iterator[Guest]:
    """A guest behind a stub that talks so."""
    with StubServer(folder, talk) as server, Guest(Endpoint(path=str(server.path)), SECONDS) as guest:
        yield guest


def but(stub: MachineStub, start: bytes, said: Callable[[bytes], Answer]) -> Connect:
    """The stub's conversation, with other answers to questions that begin so."""
    return answering(lambda question: said(question) if question.startswith(start) else stub.answer(question))


def test_memory_and_registers_are_the_machines(sample: Session, stub: MachineStub, tmp_path: Path) -> None:
    """Physical memory, across pages; registers by the names of a snapshot."""
    with connected(tmp_path, answering(stub.answer)) as guest:
        seen = guest.snapshot()
        start = sample.memory.translate(sample.linux.address("linux_banner"))
        assert seen.physical.read(start, 300) == sample.snapshot.physical.read(start, 300)
        for name in ("rip", "rsp", "rflags", "cs", "r15"):
            assert seen.cpus[0].registers[name] == sample.snapshot.cpus[0].registers[name], name
        assert (seen.cpus[0].cr3, guest.cpus) == (sample.snapshot.cpus[0].cr3, 1)
        with pytest.raises(NotInSnapshot):
            seen.physical.read(1 << 40, 8)
        with pytest.raises(NotFound):
            guest.registers(1)


def test_leaving_takes_everything_back(stub: MachineStub, tmp_path: Path) -> None:
    """Breakpoints, the way memory is read, and at last the guest runs on; so too after an error."""
    with pytest.raises(ZeroDivisionError), connected(tmp_path, answering(stub.answer)) as guest:
        guest.set_breakpoint(0x1000)
        guest.set_breakpoint(0x2000, BreakKind.WRITE, 8)
        raise ZeroDivisionError
    assert stub.log[-4:] == [b"z1,1000,1", b"z2,2000,8", b"Qqemu.PhyMemMode:0", b"D"]


def test_moving_forgets_memory(stub: MachineStub, tmp_path: Path) -> None:
    """A page that was read is read again after a step."""
    with connected(tmp_path, answering(stub.answer)) as guest:
        for _ in range(2):
            with pytest.raises(NotInSnapshot):
                guest.memory.read(0, 8)
        assert sum(question.startswith(b"m0,") for question in stub.log) == 1
        assert guest.step(0) == GuestStop(StopReason.STEP, 0, guest.registers(0)["rip"])
        with pytest.raises(NotInSnapshot):
            guest.memory.read(0, 8)
        assert sum(question.startswith(b"m0,") for question in stub.log) == 2


def test_a_breakpoint_under_a_cpu_is_stepped_off(sample: Session, stub: MachineStub, tmp_path: Path) -> None:
    """Else it would hit again at once."""
    ip = sample.snapshot.cpus[0].registers["rip"]
    with connected(tmp_path, answering(stub.answer)) as guest:
        guest.set_breakpoint(ip)
        assert guest.resume().reason == StopReason.BREAKPOINT
    moves = [question for question in stub.log if question[:1] in b"zZ" or question.startswith(b"vCont;")]
    assert moves[:5] == [b"Z1,%x,1" % ip, b"z1,%x,1" % ip, b"vCont;s:01", b"Z1,%x,1" % ip, b"vCont;c"]


def test_a_guest_that_runs_answers_nothing_until_it_is_stopped(stub: MachineStub, tmp_path: Path) -> None:
    """Questions are refused, an interrupt or the end of the time stops it."""
    with connected(tmp_path, but(stub, b"vCont;c", lambda _: None)) as guest:
        guest.start()
        with pytest.raises(RemoteError, match="running"):
            guest.registers(0)
        with pytest.raises(RemoteError, match="running"):
            guest.memory.read(0, 8)
        assert guest.interrupt().reason == StopReason.INTERRUPT
        with pytest.raises(OrcdbgError, match="stopped already"):
            guest.interrupt()
        assert guest.resume(0.05).reason == StopReason.INTERRUPT


def test_a_watchpoint_names_the_data(stub: MachineStub, tmp_path: Path) -> None:
    """From the stop reply."""
    with connected(tmp_path, but(stub, b"vCont;c", lambda _: b"T05thread:01;watch:ffff8000;")) as guest:
        assert guest.resume().watched == 0xFFFF8000


def test_stop_replies_nobody_asked_for_are_passed_over(stub: MachineStub, tmp_path: Path) -> None:
    """QEMU sends one when a client connects, whenever it likes."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(encode_packet(b"T02thread:01;"))
        answering(stub.answer)(connection)

    with connected(tmp_path, talk) as guest:
        assert guest.registers(0)["rip"] == stub.snapshot.cpus[0].registers["rip"]


def garbage(*data: bytes) -> Connect:
    """Answers every packet with these bytes, unframed."""

    def talk(connection: socket.socket) -> None:
        while connection.recv(65536):
            for piece in data:
                connection.sendall(piece)

    return talk


@pytest.mark.parametrize(
    ("talk", "why"),
    [
        (garbage(), "no answer in"),
        (garbage(b"$OK#00"), "damaged"),
        (garbage(b"-"), "damaged"),
        (garbage(b"HTTP/1.1 400 Bad Request\r\n" * 4000), "does not speak"),
        (garbage(b"+", b"%a#61" * 100), "without answering"),
        (garbage(b"$" + b"a" * 70000, b"a" * 70000), "more than"),
        (garbage(b"$a"), "no answer in"),
        (lambda connection: None, "hung up|Connection reset|Broken pipe"),
        (garbage(b"+$X00#b8"), "ended"),
    ],
    ids=["silence", "checksum", "nack", "http", "notifications", "endless", "half", "close", "exit"],
)
def test_a_peer_that_is_no_stub_is_an_error_in_time(talk: Connect, why: str, tmp_path: Path) -> None:
    """Each in a bounded time, with a word that says what is wrong."""
    start = time.monotonic()
    with StubServer(tmp_path, talk) as server, pytest.raises(RemoteError, match=why):
        Guest(Endpoint(path=str(server.path)), SECONDS)
    assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"Qqemu", b""),
        (b"qXfer", b""),
        (b"qXfer", b"x"),
        (b"qXfer", b"m"),
        (b"qfThreadInfo", b"m-1"),
        (b"qfThreadInfo", b"E01"),
        (b"qfThreadInfo", b"m"),
        (b"qfThreadInfo", b"l"),
        (b"qsThreadInfo", b"m" + b"1," * 500 + b"1"),
        (b"Hg", b"E01"),
        (b"Hg", b"NO"),
        (b"g", b"00"),
        (b"g", b"zz" * 200),
        (b"g", b"x" * 400),
        (b"?", b"W00"),
        (b"?", b"hello"),
        (b"?", b"T05thread:zz;"),
        (b"qSupported", b"PacketSize=zz"),
    ],
)
def test_an_answer_that_lies_is_an_error(start: bytes, said: bytes, stub: MachineStub, tmp_path: Path) -> None:
    """In what is needed to begin; and the guest is let go all the same."""
    with (
        StubServer(tmp_path, but(stub, start, lambda _: said)) as server,
        pytest.raises(OrcdbgError),
    ):
        Guest(Endpoint(path=str(server.path)), SECONDS)
    assert stub.log[-1] == b"D"


@pytest.mark.parametrize("said", [b"0", b"", b"00" * 4097, b"xx", b"OK"])
def test_memory_that_lies_is_an_error(said: bytes, stub: MachineStub, tmp_path: Path) -> None:
    """Wrong digits, wrong lengths."""
    with connected(tmp_path, but(stub, b"m", lambda _: said)) as guest, pytest.raises(OrcdbgError):
        guest.memory.read(0x1000, 8)


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(stub: MachineStub, tmp_path: Path) -> None:
    """The connection is given up instead."""

    def slow(question: bytes) -> Answer:
        time.sleep(2 * SECONDS)
        return b"00" * 8

    with connected(tmp_path, but(stub, b"m", slow)) as guest:
        for _ in range(2):
            with pytest.raises(RemoteError, match="no answer in"):
                guest.memory.read(0, 8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"q", b"g", b"m", b"H", b"?", b"v"]), st.binary(max_size=40))
def test_any_answer_is_a_value_or_an_error(sample: Session, start: bytes, said: bytes) -> None:
    """Whichever question is answered so."""
    stub = MachineStub(sample.snapshot)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with connected(Path(folder), but(stub, start, lambda _: said)) as guest:
                guest.snapshot()
                guest.memory.read(0x1000, 8)
                guest.step(0)
        except OrcdbgError as error:
            assert error.message
