"""Serving gdb: what it asks is answered, what it writes is refused, and no client does any harm."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orcdbg.base.errors import BadAddress, NotFound, OrcdbgError
from orcdbg.gdb import server
from orcdbg.gdb.endpoint import Endpoint
from orcdbg.gdb.packets import MAX_ENCODED, Arrived, Kind, PacketReader, encode_packet
from orcdbg.gdb.server import Clients, Patience, Served, ServedThread, listen, serve
from orcdbg.gdb.target_description import read_description


class Two:
    """Two threads over a page at 0x1000; the first one can be stepped, and counts its steps in rax."""

    def __init__(self) -> None:
        self.steps = 0

    @property
    def threads(self) -> Sequence[ServedThread]:
        """Their names are what a hostile kernel would call them."""
        return [ServedThread(7, "one"), ServedThread(8, 'a"<&\x1bé')]

    def registers(self, thread: int) -> Mapping[str, int]:
        """Few are known of the second."""
        if thread not in (7, 8):
            raise NotFound("thread", str(thread))
        return {"rip": 0x1000 + self.steps, "rsp": 0x1800, "rax": self.steps} if thread == 7 else {"rip": 5}

    def read(self, address: int, size: int) -> bytes:
        """The page."""
        if not 0x1000 <= address <= address + size <= 0x2000:
            raise BadAddress("virtual", address, size)
        return b"\xab" * size

    def step(self, thread: int) -> None:
        """The second has nothing to step."""
        if thread == 8:
            raise OrcdbgError("it sleeps")
        self.steps += 1

    def run(self, thread: int, until: frozenset[int], stopped: Callable[[], bool]) -> None:
        """Up to a breakpoint."""
        while self.registers(thread)["rip"] not in until and not stopped():
            self.step(thread)


@pytest.fixture
def served() -> Served:
    """A client's answers; one that interrupts at once."""
    return Served(Two(), lambda: True)


def test_threads_have_names_that_are_safe(served: Served) -> None:
    """In the list, and in XML."""
    assert served.answer(b"qfThreadInfo") == b"m7,8"
    assert served.answer(b"qsThreadInfo") == b"l"
    assert bytes.fromhex(served.answer(b"qThreadExtraInfo,8").decode()) == b'a"<&\x1b\\xe9'
    assert b'name="a&quot;&lt;&amp;\\x1b\\xe9"' in served.answer(b"qXfer:threads:read::0,1000")
    assert (served.answer(b"T8"), served.answer(b"T9")) == (b"OK", b"E01")


def test_registers_that_are_not_known_are_not_made_up(served: Served) -> None:
    """They are sent as unavailable, in the order of the description that we send."""
    places = read_description(lambda name: served.answer(f"qXfer:features:read:{name}:0,3ff0".encode())[1:])
    offsets = {place.name: 2 * place.offset for place in places}
    answer = served.answer(b"g")
    assert len(answer) == 2 * (places[-1].offset + places[-1].size)
    assert answer[offsets["rsp"] :][:16] == b"0018000000000000"
    assert answer[offsets["rbx"] :][:16] == b"x" * 16
    assert served.answer(b"Hg8") == b"OK"
    assert served.answer(b"g")[offsets["rsp"] :][:16] == b"x" * 16
    assert served.answer(b"p10") == b"0500000000000000"


def test_memory_is_read_up_to_where_it_ends(served: Served) -> None:
    """And not at all where there is none."""
    assert served.answer(b"m1000,4") == b"ab" * 4
    assert served.answer(b"m1ffe,10") == b"ab" * 2
    assert served.answer(b"m2000,1") == b"E14"


@pytest.mark.parametrize("packet", [b"M1000,1:00", b"X1000,0:", b"G00", b"P0=00"])
def test_nothing_is_written(served: Served, packet: bytes) -> None:
    """Neither memory nor registers."""
    assert served.answer(packet) == b"E01"


def test_threads_step_and_run(served: Served) -> None:
    """One thread moves; the reason why it does not is said, and the stop is without a signal."""
    assert served.answer(b"vCont;s:7;c") == b"T05thread:7;"
    assert served.answer(b"p0") == b"0100000000000000"
    assert served.answer(b"Z0,1004,1") == b"OK"
    assert Served(Two()).answer(b"Z2,1004,1") == b""
    target = Two()
    runner = Served(target)
    runner.answer(b"Z1,1004,1")
    assert runner.answer(b"vCont;c:-1") == b"T05thread:7;"
    assert target.steps == 4
    assert served.answer(b"vCont;s:8") == b"T00thread:8;"
    assert served.message == "orcdbg: it sleeps\n"


@pytest.mark.parametrize(
    "packet", [b"vCont;", b"vCont;x", b"vCont;s:99", b"Hgzz", b"mzz", b"m1", b"m-1,1", b"p", b"Z0"]
)
def test_what_makes_no_sense_is_an_error(served: Served, packet: bytes) -> None:
    """And the server stays."""
    assert served.answer(packet)[:1] in (b"E", b"T")
    assert served.answer(b"?")[:3] == b"T05"


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"m", b"Hg", b"vCont;", b"vCont;s:", b"Z0,", b"z1,", b"p", b"g", b"q", b"qXfer:",
                                 b"qXfer:features:read:target.xml:", b"qThreadExtraInfo,", b"qsThreadInfo", b"T", b"c"])
                .flatmap(lambda start: st.binary(max_size=12).map(lambda rest: start + rest)), max_size=6))  # fmt: skip
def test_any_packets_have_answers(packets: list[bytes]) -> None:
    """Whatever they are, of bounded size."""
    served = Served(Two(), lambda: True)
    for packet in packets:
        assert len(served.answer(packet)) <= 0x4000


def conversation(*pieces: bytes) -> list[bytes]:
    """The payloads that come back on a connection on which these bytes are sent."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, Two()))
    thread.start()
    with ours, theirs:
        ours.settimeout(10)
        reader, out = PacketReader(), list[bytes]()
        for piece in pieces:
            ours.sendall(piece)
        ours.shutdown(socket.SHUT_WR)
        thread.join(10)
        assert not thread.is_alive()
        theirs.close()
        while data := ours.recv(65536):
            reader.feed(data)
    while (arrived := reader.take()) is not None:
        if arrived.kind is Kind.PACKET:
            out.append(arrived.payload)
    return out


def test_a_conversation() -> None:
    """Damaged packets are asked for again, unknown ones have an empty answer."""
    assert conversation(b"+$qC#", b"b4$x#00", encode_packet(b"vMustReplyEmpty"), b"-", encode_packet(b"D"))[:4] == [
        b"QC7",
        b"",
        b"",
        b"OK",
    ]


def test_what_kept_a_thread_from_moving_is_printed() -> None:
    """As the console output of the machine, before the stop."""
    printed, stop = conversation(encode_packet(b"vCont;s:8"))
    assert (bytes.fromhex(printed[1:].decode()), stop) == (b"orcdbg: it sleeps\n", b"T00thread:8;")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_end_a_conversation(pieces: list[bytes]) -> None:
    """The server is there for the next client."""
    conversation(*pieces)


def test_a_client_without_end_is_dropped() -> None:
    """Its packet is not kept for ever."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, Two()))
    thread.start()
    with ours, theirs:
        ours.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):  # nobody takes it any more
            for _ in range(64):
                ours.sendall(b"$" + b"a" * 65536)
        thread.join(10)
    assert not thread.is_alive()


class Endless(Two):
    """A thread that runs until it is told to stop."""

    def run(self, thread: int, until: frozenset[int], stopped: Callable[[], bool]) -> None:
        """Never comes to a breakpoint."""
        while not stopped():
            time.sleep(0.01)


@contextlib.contextmanager
def served_at(folder: Path, patience: Patience) -> Iterator[Endpoint]:
    """Where clients are served until the test ends."""
    endpoint = Endpoint(path=str(folder / "socket"))
    listener = listen(endpoint)
    thread = threading.Thread(target=_serve_on, args=(listener, patience), daemon=True)
    thread.start()
    yield endpoint
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    listener.close()
    assert not thread.is_alive()


def _serve_on(listener: socket.socket, patience: Patience) -> None:
    with contextlib.suppress(OSError):  # the test has ended
        Clients(listener, Endless, patience).serve()


def _connected(endpoint: Endpoint) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(endpoint.path)
    return client


def _asked(client: socket.socket, question: bytes) -> bytes:
    client.sendall(encode_packet(question))
    reader = PacketReader()
    while True:
        data = client.recv(65536)
        assert data, "the server hung up"
        reader.feed(data)
        while (arrived := reader.take()) is not None:
            if arrived.kind is Kind.PACKET:
                return arrived.payload


def test_a_silent_client_locks_nobody_out(tmp_path: Path) -> None:
    """One that says nothing is let go after a while; one that asked something stays."""
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(served_at(tmp_path, Patience(first_word=0.3)))
        silent, first, second = (stack.enter_context(_connected(endpoint)) for _ in range(3))
        assert _asked(first, b"qC") == b"QC7"
        assert _asked(second, b"qC") == b"QC7"
        assert silent.recv(1) == b""
        assert _asked(first, b"qC") == b"QC7"


def test_a_client_that_does_not_hang_up_holds_nobody(tmp_path: Path) -> None:
    """After it said goodbye it has so long for the last acknowledgement, however it spends the time."""
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(served_at(tmp_path, Patience(linger=0.3)))
        left, other = (stack.enter_context(_connected(endpoint)) for _ in range(2))
        assert _asked(left, b"D") == b"OK"
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < 9:
                left.sendall(b"+")
                assert _asked(other, b"qC") == b"QC7"
                time.sleep(0.05)
        assert time.monotonic() - begun < 9


def test_a_long_run_ends_when_others_wait(tmp_path: Path) -> None:
    """The thread stops as if the client had asked for it."""
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(served_at(tmp_path, Patience(run=0.2)))
        running, other = (stack.enter_context(_connected(endpoint)) for _ in range(2))
        assert _asked(other, b"qC") == b"QC7"
        running.sendall(encode_packet(b"vCont;c:7"))
        time.sleep(0.1)
        assert _asked(other, b"qC") == b"QC7"
        assert b"T05thread:7;" in running.recv(100)


@pytest.mark.parametrize("silent", [0.0, 3600.0])
def test_of_too_many_clients_the_silent_one_goes(tmp_path: Path, silent: float) -> None:
    """Where none is silent for long enough, the new one is sent away."""
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(served_at(tmp_path, Patience(silent=silent)))
        clients = [stack.enter_context(_connected(endpoint)) for _ in range(server.MAX_CLIENTS)]
        assert [_asked(client, b"qC") for client in clients] == [b"QC7"] * server.MAX_CLIENTS
        newcomer = stack.enter_context(_connected(endpoint))
        if silent:
            assert newcomer.recv(1) == b""
        else:
            assert _asked(newcomer, b"qC") == b"QC7"
            assert clients[0].recv(1) == b""
        assert _asked(clients[1], b"qC") == b"QC7"


def test_a_flood_of_single_bytes_is_read_once() -> None:
    """What has arrived is not copied, or searched, anew for each byte."""
    reader = PacketReader()
    body = b"a" * (MAX_ENCODED - 10)
    for byte in b"$" + body:
        reader.feed(bytes((byte,)))
        assert reader.take() is None
    reader.feed(b"#%02x" % (sum(body) & 0xFF))
    assert reader.take() == Arrived(Kind.PACKET, body)
