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

SECONDS = 15.0
RETRIES = 3
MAX_UNASKED = 64  # notifications and stale stop replies before one answer
MAX_THREADS = 4096
MAX_DOCUMENT = 1 << 20
MIN_PACKET, DEFAULT_PACKET, MAX_PACKET = 256, 1024, 1 << 16
_STOP = re.compile(rb"[TS][0-9a-fA-F]{2}")
_ERROR = re.compile(rb"E(?:[0-9a-fA-F]{2}|\..*)", re.DOTALL)
_THREAD = re.compile(rb"(?:p[0-9a-fA-F]{1,8}\.)?[0-9a-fA-F]{1,8}")


class Refused(RemoteError):
    """The stub answered with an error, or does not know the question; the connection is good."""


class StopReply(NamedTuple):
    """Why the machine stopped: a signal's number, the thread, and the address of the data that a watchpoint saw."""

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
    thread, watched = None, None
    for pair in payload[3:].split(b";") if payload[:1] == b"T" else ():
        key, _, value = pair.partition(b":")
        if key == b"thread":
            if not _THREAD.fullmatch(value):
                raise RemoteError(f"not a thread: {value[:40]!r}")
            thread = value
        elif key in (b"watch", b"rwatch", b"awatch"):
            watched = number(value, "stop reply")
    return StopReply(int(payload[1:3], 16), thread, watched)


class Client:
    """A connection to a stub.

    Args:
        endpoint: where it listens.
        seconds: how long one answer may take.
    """

    def __init__(self, endpoint: Endpoint, seconds: float = SECONDS) -> None:
        self.endpoint = endpoint
        self.is_running = False
        self._seconds = seconds
        self._reader = PacketReader()
        self._lock = threading.RLock()  # the prompt sorts symbol names aside, those of modules too
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
                    data = self._socket.recv(65536)
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
        out = b""
        while len(out) <= MAX_DOCUMENT:
            length = self._packet - 8
            answer = self.ask(f"qXfer:features:read:{name}:{len(out):x},{length:x}".encode())
            out += answer[1:]
            if answer[:1] == b"l":
                return out
            if answer[:1] != b"m" or len(answer) == 1:
                raise RemoteError(f"{self.endpoint}: target description: {_shown(answer)}")
        raise RemoteError(f"{self.endpoint}: target description: more than {MAX_DOCUMENT} bytes")

    @functools.cached_property
    def places(self) -> list[RegisterPlace]:
        """The registers of this machine's CPUs."""
        return read_description(self._document)

    def threads(self) -> list[bytes]:
        """The names of the threads; of QEMU, one a CPU, in order."""
        found: list[bytes] = []
        question = b"qfThreadInfo"
        while len(found) <= MAX_THREADS:
            answer = self.ask(question)
            if answer == b"l":
                return found
            names = answer[1:].split(b",")
            if answer[:1] != b"m" or not all(_THREAD.fullmatch(name) for name in names):
                raise RemoteError(f"{self.endpoint}: not a list of threads: {_shown(answer)}")
            found += names
            question = b"qsThreadInfo"
        raise RemoteError(f"{self.endpoint}: more than {MAX_THREADS} threads")

    def registers(self, thread: bytes) -> dict[str, int]:
        """A thread's registers that have a value, by the stub's names."""
        self.command(b"Hg" + thread)
        answer = self.ask(b"g")
        values = {}
        for name, offset, size in self.places:
            digits = answer[2 * offset : 2 * (offset + size)]
            if len(digits) == 2 * size and digits.strip(b"x"):
                values[name] = int.from_bytes(from_hex(digits, f"register {name}"), "little")
        missing = {"rip", "rsp", "eflags", "cs"} - set(values)
        if missing:
            raise RemoteError(f"{self.endpoint}: no {min(missing)} among a CPU's registers")
        return values

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of memory; Refused where the stub cannot read them."""
        out = b""
        limit = (self._packet - 16) // 2
        while len(out) < size:
            wanted = min(limit, size - len(out))
            data = from_hex(self.ask(f"m{address + len(out):x},{wanted:x}".encode()), "memory")
            if not 0 < len(data) <= wanted:
                raise RemoteError(f"{self.endpoint}: {len(data)} bytes of memory where {wanted} were asked for")
            out += data
        return out

    # Moving

    def start(self, action: bytes) -> None:
        """Lets the machine go: `action` is a vCont packet. What it reported before is taken off the line first."""
        with self._lock:
            self.ask(b"vCont?")
            self.is_running = True  # before it does: a Ctrl-C in between must find that it has to be stopped
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
            if arrived.kind is not Kind.PACKET or arrived.payload[:1] == b"O":
                continue  # `O` is what a stub's machine prints
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
                data = self._socket.recv(65536)
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
