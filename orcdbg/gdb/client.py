"""How is a stub of the GDB remote protocol asked, so that none that lies, stalls or goes away can hang us?

Each question has a time limit, and each answer a bounded size. A connection on which something went wrong is not used
again, since its next answer may belong to an older question.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
from typing import NamedTuple

from orcdbg.base.errors import RemoteError
from orcdbg.gdb.endpoint import Endpoint, connect
from orcdbg.gdb.packets import Arrived, Kind, PacketReader, encode_packet, from_hex, number
from orcdbg.gdb.target_description import RegisterPlace, read_description

# How long an answer may take: QEMU answers at once, a machine behind a slow line within seconds.
SECONDS = 15.0
# Damaged packets before one answer, after which the line is given up.
RETRIES = 3
# Notifications and stale stop replies before one answer; a stub could talk for ever without one.
MAX_UNASKED = 64
MAX_THREADS = 4096
MAX_DOCUMENT = 1 << 20

# Bytes of a packet: as few as the shortest questions need, what is taken where the stub does not say, and as many as
# are asked for whatever it says.
MIN_PACKET = 256
DEFAULT_PACKET = 1024
MAX_PACKET = 1 << 16
_RECEIVED = 1 << 16
# What `$`, `#`, the checksum and an answer's first letter take of a packet.
_FRAMING = 8

_STOP = re.compile(rb"[TS][0-9a-fA-F]{2}")
_ERROR = re.compile(rb"E(?:[0-9a-fA-F]{2}|\..*)", re.DOTALL)
_THREAD = re.compile(rb"(?:p[0-9a-fA-F]{1,8}\.)?[0-9a-fA-F]{1,8}")


class Refused(RemoteError):
    """The stub answered with an error, or does not know the question; the connection is good."""


class StopReply(NamedTuple):
    """Why the machine stopped.

    Attributes:
        signal: its number.
        thread: the thread's name; None where the stub names none.
        watched: address of the data that a watchpoint saw; None for any other stop.
    """

    signal: int
    thread: bytes | None
    watched: int | None


def parse_stop(payload: bytes) -> StopReply:
    """What a stop reply says.

    Raises:
        RemoteError: it is none, or the machine has ended.
    """
    if payload[:1] in (b"W", b"X", b"N"):
        raise RemoteError("the machine has ended")
    if not _STOP.match(payload):
        raise RemoteError(f"not a stop reply: {payload[:40]!r}")

    signal = int(payload[1:3], 16)
    if payload[:1] == b"S":
        return StopReply(signal, None, None)

    thread = None
    watched = None
    for pair in payload[3:].split(b";"):
        key, _, value = pair.partition(b":")
        if key == b"thread":
            if not _THREAD.fullmatch(value):
                raise RemoteError(f"not a thread: {value[:40]!r}")
            thread = value
        elif key in (b"watch", b"rwatch", b"awatch"):
            watched = number(value, "stop reply")
    return StopReply(signal, thread, watched)


class Client:
    """A connection to a stub.

    Args:
        endpoint: where it listens.
        seconds: how long one answer may take.

    Attributes:
        endpoint: likewise.
        is_running: whether the machine was let go and has not reported a stop.

    Raises:
        RemoteError: nobody listens there.
    """

    def __init__(self, endpoint: Endpoint, seconds: float = SECONDS) -> None:
        self.endpoint = endpoint
        self.is_running = False
        self._seconds = seconds
        self._reader = PacketReader()
        # The prompt asks from a second thread, which sorts symbol names aside, those of modules too.
        self._lock = threading.RLock()
        # Why the connection is of no more use; None while it is good.
        self._broken: str | None = None
        self._packet = DEFAULT_PACKET
        self._socket = connect(endpoint, seconds)

    def close(self, last_words: tuple[bytes, ...] = ()) -> None:
        """Hangs up. Over a connection that is of no more use, `last_words` are said all the same, without an answer."""
        if self._broken:
            with contextlib.suppress(OSError):
                self._socket.settimeout(1.0)
                self._socket.sendall(b"\x03" + b"".join(map(encode_packet, last_words)))
        self._socket.close()
        self._broken = self._broken or "closed"

    # Questions

    def ask(self, question: bytes) -> bytes:
        """The answer to a question that the stub must know and grant.

        Raises:
            Refused: it does not.
            RemoteError: no answer in time, or the protocol is broken.
        """
        with self._lock:
            if self.is_running:
                raise Refused("the machine is running", "`interrupt` stops it")
            answer = self._exchange(question)
        if not answer:
            raise Refused(f"{self.endpoint}: the stub does not know {_shown(question)}")
        if _ERROR.fullmatch(answer):
            raise Refused(f"{self.endpoint}: the stub refuses {_shown(question)}: {_shown(answer)}")
        return answer

    def command(self, question: bytes) -> None:
        """A question whose answer must be `OK`."""
        answer = self.ask(question)
        if answer != b"OK":
            raise RemoteError(f"{self.endpoint}: {_shown(question)} was answered by {_shown(answer)}")

    def find(self, question: bytes) -> bytes | None:
        """The answer to a question that the stub may not know; None then."""
        try:
            return self.ask(question)
        except Refused:
            return None

    def _exchange(self, question: bytes) -> bytes:
        """Sends a question and waits for its answer; a Ctrl-C counts only after it, lest the next be mistaken."""
        if self._broken:
            raise RemoteError(f"{self.endpoint}: the connection is of no more use: {self._broken}")

        self._send(encode_packet(question))
        deadline = time.monotonic() + self._seconds

        interrupted: KeyboardInterrupt | None = None
        answer: bytes | None = None
        while answer is None:
            try:
                answer = self._answer(question, deadline)
            except KeyboardInterrupt as pressed:
                interrupted = pressed
        if interrupted is not None:
            raise interrupted
        return answer

    def _answer(self, question: bytes, deadline: float) -> bytes:
        """The answer to a question that was sent."""
        failed = 0
        for _ in range(MAX_UNASKED):
            arrived = self._next(deadline)
            if arrived.kind is Kind.NACK:
                failed += 1
                self._send(encode_packet(question))
            elif arrived.kind is Kind.DAMAGED:
                failed += 1
                self._send(b"-")
            elif arrived.kind is Kind.PACKET:
                self._send(b"+")
                # QEMU reports by itself that a connection stopped it, at any time after.
                if not _STOP.match(arrived.payload) or question == b"?":
                    return arrived.payload

            if failed > RETRIES:
                raise self._break("packets arrive damaged")
        raise self._break("it talks without answering")

    def _next(self, deadline: float) -> Arrived:
        """The next thing of the stream but acknowledgements."""
        try:
            while True:
                arrived = self._reader.take()
                if arrived is not None and arrived.kind is not Kind.ACK:
                    return arrived
                if arrived is None:
                    self._socket.settimeout(max(0.001, deadline - time.monotonic()))
                    data = self._socket.recv(_RECEIVED)
                    if not data:
                        raise self._break("it hung up")
                    self._reader.feed(data)
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError as error:
            raise self._break(f"no answer in {self._seconds:g} s") from error
        except OSError as error:
            raise self._break(error.strerror or str(error)) from error
        except RemoteError as error:
            raise self._break(error.message) from error

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._seconds)
            self._socket.sendall(data)
        except OSError as error:
            raise self._break(f"cannot send: {error.strerror or error}") from error

    def _break(self, why: str) -> RemoteError:
        """The error that ends the use of this connection."""
        if self._broken is None:
            self._broken = why
        return RemoteError(f"{self.endpoint}: {self._broken}")

    # What stubs are asked

    def greet(self) -> StopReply:
        """Says which features we know, and asks why the machine stopped."""
        told = self.find(b"qSupported:xmlRegisters=i386;vContSupported+;swbreak+;hwbreak+") or b""
        for feature in told.split(b";"):
            if feature.startswith(b"PacketSize="):
                size = number(feature.partition(b"=")[2], "PacketSize")
                self._packet = min(max(size, MIN_PACKET), MAX_PACKET)
        return parse_stop(self.ask(b"?"))

    def _document(self, name: str) -> bytes:
        """One of the documents of the target description; `l` begins its last part, `m` any other."""
        document = b""
        while len(document) <= MAX_DOCUMENT:
            length = self._packet - _FRAMING
            answer = self.ask(f"qXfer:features:read:{name}:{len(document):x},{length:x}".encode())
            document += answer[1:]
            if answer[:1] == b"l":
                return document
            if answer[:1] != b"m" or len(answer) == 1:
                raise RemoteError(f"{self.endpoint}: target description: {_shown(answer)}")
        raise RemoteError(f"{self.endpoint}: target description: more than {MAX_DOCUMENT} bytes")

    @functools.cached_property
    def places(self) -> list[RegisterPlace]:
        """The registers of this machine's CPUs."""
        return read_description(self._document)

    def threads(self) -> list[bytes]:
        """The names of the threads; of QEMU, one a CPU, in order."""
        threads: list[bytes] = []
        question = b"qfThreadInfo"
        while len(threads) <= MAX_THREADS:
            answer = self.ask(question)
            if answer == b"l":
                return threads

            names = answer[1:].split(b",")
            if answer[:1] != b"m" or not all(_THREAD.fullmatch(name) for name in names):
                raise RemoteError(f"{self.endpoint}: not a list of threads: {_shown(answer)}")
            threads += names
            question = b"qsThreadInfo"
        raise RemoteError(f"{self.endpoint}: more than {MAX_THREADS} threads")

    def registers(self, thread: bytes) -> dict[str, int]:
        """A thread's registers that have a value, by the stub's names.

        Raises:
            RemoteError: one is missing without which nothing can be shown of a CPU.
        """
        self.command(b"Hg" + thread)
        answer = self.ask(b"g")
        values = {}
        for name, offset, size in self.places:
            digits = answer[2 * offset : 2 * (offset + size)]
            # The answer may end early, and `xx` stands for a byte that the stub does not know.
            if len(digits) == 2 * size and digits.strip(b"x"):
                values[name] = int.from_bytes(from_hex(digits, f"register {name}"), "little")

        missing = {"rip", "rsp", "eflags", "cs"} - set(values)
        if missing:
            raise RemoteError(f"{self.endpoint}: no {min(missing)} among a CPU's registers")
        return values

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of memory; Refused where the stub cannot read them."""
        memory = b""
        # A byte takes two digits.
        limit = (self._packet - 2 * _FRAMING) // 2
        while len(memory) < size:
            wanted = min(limit, size - len(memory))
            data = from_hex(self.ask(f"m{address + len(memory):x},{wanted:x}".encode()), "memory")
            if not 0 < len(data) <= wanted:
                raise RemoteError(f"{self.endpoint}: {len(data)} bytes of memory where {wanted} were asked for")
            memory += data
        return memory

    # Moving

    def start(self, action: bytes) -> None:
        """Lets the machine go: `action` is a vCont packet. What it reported before is taken off the line first."""
        with self._lock:
            self.ask(b"vCont?")
            # Before it does: a Ctrl-C in between must find that it has to be stopped.
            self.is_running = True
            self._send(encode_packet(action))

    def wait(self, seconds: float | None) -> StopReply | None:
        """Waits until the machine stops; None when it has not after `seconds` (None: for ever)."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            arrived = self._next_until(end)
            if arrived is None:
                return None
            if arrived.kind is Kind.DAMAGED:
                raise self._break("a stop reply arrived damaged")

            # `O` is what a stub's machine prints.
            if arrived.kind is not Kind.PACKET or arrived.payload[:1] == b"O":
                continue

            self._send(b"+")
            self.is_running = False
            if not arrived.payload or _ERROR.fullmatch(arrived.payload):
                raise Refused(f"{self.endpoint}: the stub does not run the machine: {_shown(arrived.payload)}")
            return parse_stop(arrived.payload)

    def _next_until(self, end: float | None) -> Arrived | None:
        """The next thing of the stream, None when it has not come by `end`."""
        while end is None or time.monotonic() < end:
            try:
                arrived = self._reader.take()
                if arrived is not None:
                    return arrived
                self._socket.settimeout(None if end is None else max(0.001, end - time.monotonic()))
                data = self._socket.recv(_RECEIVED)
            except TimeoutError:
                return None
            except OSError as error:
                raise self._break(error.strerror or str(error)) from error
            except RemoteError as error:
                raise self._break(error.message) from error
            if not data:
                raise self._break("it hung up")
            self._reader.feed(data)
        return None

    def interrupt(self) -> StopReply:
        """Stops the machine that runs."""
        self._send(b"\x03")
        stop = self.wait(self._seconds)
        if stop is None:
            raise self._break("it does not stop when it is interrupted")
        return stop


def _shown(payload: bytes) -> str:
    """A packet's beginning, for a message."""
    return payload[:40].decode("ascii", "backslashreplace")
