"""How is a client of the GDB remote protocol served, so that none, however bad, gets more than answers?

Some clients side by side, one packet at a time of each. What is served is a `ServedTarget`; nothing of it can be written.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from orcdbg.base.errors import MemoryFault, OrcdbgError, RemoteError
from orcdbg.base.sizes import PAGE
from orcdbg.gdb.endpoint import Endpoint
from orcdbg.gdb.packets import Arrived, Kind, PacketReader, encode_packet, number

PACKET_SIZE = 0x4000
MAX_CLIENTS = 8
_SENDING = 5.0  # seconds that a client has to take an answer
_CHUNK = 1000  # threads named in one packet
_NAMES = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{one}" for one in range(8, 16)), "rip"),
    *("eflags", "cs", "ss", "ds", "es", "fs", "gs"),
)
_HALF = frozenset(("eflags", "cs", "ss", "ds", "es", "fs", "gs"))
_BASES = ("fs_base", "gs_base", "cr3", "cr4")
# gdb wants the coprocessor's registers in this feature; a snapshot has none of them.
_FLOAT = [(f"st{one}", 80) for one in range(8)] + [
    (name, 32) for name in ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
]
_REGISTERS = [(name, 32 if name in _HALF else 64) for name in _NAMES] + _FLOAT + [(name, 64) for name in _BASES]
_TYPES = {"rip": "code_ptr", "rsp": "data_ptr", "rbp": "data_ptr"}


class Patience(NamedTuple):
    """Seconds that clients have.

    Attributes:
        first_word: for their first packet.
        silent: after which one may have to make room.
        linger: to hang up, after they left.
        run: for a thread to run while other clients wait.
    """

    first_word: float = 10.0
    silent: float = 60.0
    linger: float = 2.0
    run: float = 5.0


class ServedThread(NamedTuple):
    """A thread: `number` for gdb, more than 0, and what it is called."""

    number: int
    name: str


class ServedTarget(Protocol):
    """What is served."""

    @property
    def threads(self) -> Sequence[ServedThread]:
        """All threads, the one to look at first in front."""

    def registers(self, thread: int) -> Mapping[str, int]:
        """A thread's registers that are known, by gdb's names."""

    def read(self, address: int, size: int) -> bytes:
        """Memory; MemoryFault where there is none."""

    def step(self, thread: int) -> None:
        """Runs one instruction of a thread; OrcdbgError where that cannot be."""

    def run(self, thread: int, until: frozenset[int], stopped: Callable[[], bool]) -> None:
        """Runs a thread up to one of some addresses, or until `stopped`; OrcdbgError where it cannot go on."""


def description() -> str:
    """The registers of a served thread, as XML for gdb."""
    lines = []
    for name, bits in _REGISTERS:
        kind = _TYPES.get(name, "i387_ext" if bits == 80 else "int" if bits == 32 else "int64")
        group = ' group="float"' if (name, bits) in _FLOAT else ""
        lines.append(f'<reg name="{name}" bitsize="{bits}" type="{kind}"{group}/>')
    return (
        '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target><architecture>i386:x86-64</architecture>'
        f'<feature name="org.gnu.gdb.i386.core">{"".join(lines)}</feature></target>'
    )


class Served:
    """The answers to one client.

    Args:
        target: what it looks at.
        interrupted: tells whether the client wants a run to end.
    """

    def __init__(self, target: ServedTarget, interrupted: Callable[[], bool] = lambda: False) -> None:
        self._target = target
        self._interrupted = interrupted
        self._thread = target.threads[0].number
        self._known = {thread.number for thread in target.threads}
        self._breakpoints: set[int] = set()
        self._listed = 0
        self.has_left = False
        self.message = ""  # for the user to see, before the answer

    def answer(self, packet: bytes) -> bytes:
        """The answer to a packet: empty for one that is not known, `E01` for one that makes no sense."""
        try:
            return self._answer(packet)
        except MemoryFault:
            return b"E14"
        except OrcdbgError as error:
            if not packet.startswith((b"vCont;", b"c", b"s")):
                return b"E01"
            self.message = f"orcdbg: {error.message}\n"
            return b"T00thread:%x;" % self._thread  # it stopped, without a signal

    def _answer(self, packet: bytes) -> bytes:
        simple = {
            b"?": self._stop,
            b"g": self._all_registers,
            b"vCont?": lambda: b"vCont;c;C;s;S",
            b"D": self._leave,
            b"k": self._leave,
        }
        if packet in simple:
            return simple[packet]()
        if packet == b"qC":
            return b"QC%x" % self._thread
        if packet[:1] == b"H":
            return self._select(packet[1:])
        if packet[:1] == b"T":
            return b"OK" if self._number(packet[1:]) in self._known else b"E01"
        if packet[:1] == b"m":
            address, _, size = packet[1:].partition(b",")
            wanted = min(number(size, "size"), PACKET_SIZE // 2 - 4)
            return self._memory(number(address, "address"), wanted)
        if packet[:1] == b"p":
            return self._one_register(number(packet[1:], "register"))
        if packet[:1] in b"MXGP":
            return b"E01"  # a snapshot is not written
        if packet[:1] in b"zZ":
            return self._breakpoint(packet)
        if packet.startswith(b"vCont;") or packet[:1] in b"cs":
            return self._move(packet)
        return self._query(packet)

    def _query(self, packet: bytes) -> bytes:
        if packet.startswith(b"qSupported"):
            return b"PacketSize=%x;qXfer:features:read+;qXfer:threads:read+;vContSupported+" % PACKET_SIZE
        if packet.startswith((b"qXfer:features:read:target.xml:", b"qXfer:threads:read::")):
            text = description() if b"features" in packet else self._threads_xml()
            start, _, size = packet.rpartition(b":")[2].partition(b",")
            return _piece(text.encode(), number(start, "offset"), number(size, "size"))
        if packet == b"qfThreadInfo":
            return self._list(0)
        if packet == b"qsThreadInfo":
            return self._list(self._listed)
        if packet.startswith(b"qThreadExtraInfo,"):
            wanted = self._number(packet.partition(b",")[2])
            name = next((thread.name for thread in self._target.threads if thread.number == wanted), "")
            return name.encode("ascii", "backslashreplace").hex().encode() or b"E01"
        return b"1" if packet == b"qAttached" else b""

    def _number(self, text: bytes) -> int:
        """A thread's number; 0 and -1, for any, are the selected one's."""
        if text in (b"0", b"-1", b""):
            return self._thread
        return number(text, "thread")

    def _leave(self) -> bytes:
        self.has_left = True
        return b"OK"

    def _stop(self) -> bytes:
        return b"T05thread:%x;" % self._thread

    def _select(self, words: bytes) -> bytes:
        found = self._number(words[1:])
        if found not in self._known:
            return b"E01"
        if words[:1] == b"g" or found != self._thread:
            self._thread = found
        return b"OK"

    def _list(self, start: int) -> bytes:
        threads = self._target.threads[start : start + _CHUNK]
        self._listed = start + len(threads)
        return b"m" + b",".join(b"%x" % thread.number for thread in threads) if threads else b"l"

    def _threads_xml(self) -> str:
        rows = (f'<thread id="{thread.number:x}" name="{_xml(thread.name)}"/>' for thread in self._target.threads)
        return f'<?xml version="1.0"?><threads>{"".join(rows)}</threads>'

    def _all_registers(self) -> bytes:
        known = self._target.registers(self._thread)
        return b"".join(_register(known.get(name), bits) for name, bits in _REGISTERS)

    def _one_register(self, which: int) -> bytes:
        if which >= len(_REGISTERS):
            return b"E01"
        name, bits = _REGISTERS[which]
        return _register(self._target.registers(self._thread).get(name), bits)

    def _memory(self, address: int, size: int) -> bytes:
        """As much of it as there is up to the first byte that is not."""
        try:
            return self._target.read(address, size).hex().encode()
        except MemoryFault:
            rest = -address % PAGE
            if not 0 < rest < size:
                raise
            return self._target.read(address, rest).hex().encode()

    def _breakpoint(self, packet: bytes) -> bytes:
        kind, _, rest = packet[1:].partition(b",")
        if kind not in (b"0", b"1"):
            return b""
        address = number(rest.partition(b",")[0], "address")
        if packet[:1] == b"z":
            self._breakpoints.discard(address)
        elif len(self._breakpoints) < 1024:
            self._breakpoints.add(address)
        else:
            return b"E01"
        return b"OK"

    def _move(self, packet: bytes) -> bytes:
        """Runs the thread that is to move: what others do meanwhile is not known of a snapshot."""
        action, thread = packet[:1], self._thread
        if packet.startswith(b"vCont;"):
            actions = [one.partition(b":") for one in packet.split(b";")[1:]]
            chosen = next((one for one in actions if one[0][:1] in b"sS"), actions[0])
            action = chosen[0][:1].lower()
            thread = self._number(chosen[2])
        if thread not in self._known or action not in (b"s", b"c"):
            return b"E01"
        self._thread = thread
        if action == b"s":
            self._target.step(thread)
        else:
            self._target.run(thread, frozenset(self._breakpoints), self._interrupted)
        return self._stop()


def _register(value: int | None, bits: int) -> bytes:
    size = bits // 8
    return b"xx" * size if value is None else (value & (1 << bits) - 1).to_bytes(size, "little").hex().encode()


def _xml(text: str) -> str:
    """A name as an attribute's value; what is not plain is left as a backslash escape."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in plain)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _piece(data: bytes, start: int, size: int) -> bytes:
    size = min(size, PACKET_SIZE - 8)
    return (b"l" if start + size >= len(data) else b"m") + data[start : start + size]


def listen(endpoint: Endpoint) -> socket.socket:
    """A socket that listens, a unix one for its owner alone from the first; RemoteError where it cannot."""
    made = socket.socket(endpoint.family)
    try:
        if not endpoint.path:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Between a bind and a chmod anybody could connect.
        before = os.umask(0o177)
        try:
            made.bind(endpoint.address)
        finally:
            os.umask(before)
        made.listen(MAX_CLIENTS)
    except OSError as error:
        made.close()
        raise RemoteError(f"{endpoint}: cannot listen: {error.strerror or error}") from error
    return made


class Conversation:
    """One client's packets and our answers.

    Args:
        connection: the client.
        target: what it looks at.
        others_wait: tells whether another client has sent something, for whose sake a long run ends.
        patience: how long it has.
    """

    def __init__(
        self, connection: socket.socket, target: ServedTarget, others_wait: Callable[[], bool], patience: Patience
    ) -> None:
        self.connection = connection
        self._patience = patience
        connection.settimeout(_SENDING)
        self._reader = PacketReader()
        self._served = Served(target, self._wants_to_stop)
        self._others_wait = others_wait
        self._acknowledges = True
        self._last = b""
        self._run_ends = 0.0
        # When it is dropped: who connects has to say something, and who has left to hang up.
        self.heard = time.monotonic()  # when it last asked something
        self.deadline: float | None = self.heard + patience.first_word

    def _wants_to_stop(self) -> bool:
        """Looks for a 0x03 between two bursts of instructions; a client that hung up wants no more either."""
        try:
            self.connection.setblocking(False)
            data = self.connection.recv(4096)
            if not data or b"\x03" in data:
                return True
        except BlockingIOError:
            pass
        finally:
            self.connection.settimeout(_SENDING)
        return time.monotonic() > self._run_ends and self._others_wait()

    def receive(self) -> bool:
        """Takes what has arrived; False where the client is gone, or does not speak the protocol."""
        try:
            data = self.connection.recv(65536)
        except OSError:
            return False
        if self._served.has_left:
            return bool(data)  # the acknowledgement of the last answer; a client that cannot send it complains
        self._reader.feed(data)
        return bool(data)

    def answer_one(self) -> bool:
        """Answers the next packet that is there; False where none is.

        Raises:
            RemoteError: what is there is no packet.
            OSError: the client is gone, or takes no answers.
        """
        while not self._served.has_left and (arrived := self._reader.take()) is not None:
            if arrived.kind is Kind.PACKET:
                self.deadline = None
                self.heard = time.monotonic()
            self._take(arrived)
            if self._served.has_left:
                self.deadline = time.monotonic() + self._patience.linger
            if arrived.kind in (Kind.PACKET, Kind.NACK, Kind.DAMAGED):
                return True
        return False

    def _take(self, arrived: Arrived) -> None:
        if arrived.kind is Kind.DAMAGED:
            self.connection.sendall(b"-")
        elif arrived.kind is Kind.NACK:
            self.connection.sendall(encode_packet(self._last))
        elif arrived.kind is Kind.PACKET:
            without = arrived.payload == b"QStartNoAckMode"
            self.connection.sendall(b"+" * self._acknowledges)
            self._run_ends = time.monotonic() + self._patience.run
            self._last = b"OK" if without else self._served.answer(arrived.payload)
            self._acknowledges = self._acknowledges and not without
            if self._served.message:
                said = self._served.message.encode("ascii", "backslashreplace").hex().encode()
                self.connection.sendall(encode_packet(b"O" + said))
                self._served.message = ""
            self.connection.sendall(encode_packet(self._last))


class Clients:
    """Serves clients side by side, a packet of each in turn.

    Args:
        listener: where new ones come; None where there is only the one that was added.
        make_target: gives what a new one looks at.
        patience: how long each has.
    """

    def __init__(
        self,
        listener: socket.socket | None,
        make_target: Callable[[], ServedTarget],
        patience: Patience = Patience(),  # noqa: B008  it is never changed
    ) -> None:
        self._patience = patience
        self._listener = listener
        self._make_target = make_target
        self._selector = selectors.DefaultSelector()
        self._clients: list[Conversation] = []
        if listener is not None:
            self._selector.register(listener, selectors.EVENT_READ)

    def add(self, connection: socket.socket) -> None:
        """Serves a client from now on. Where there are too many, one that was silent for long goes, else the new one."""
        if len(self._clients) >= MAX_CLIENTS:
            silent = min(self._clients, key=lambda client: client.heard)
            if time.monotonic() - silent.heard < self._patience.silent:
                connection.close()
                return
            self._drop(silent)
        client = Conversation(connection, self._make_target(), self._others_wait, self._patience)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _others_wait(self) -> bool:
        return len(self._selector.select(0)) > 0

    def serve(self) -> None:
        """Answers for ever, or without a listener until the last client is gone."""
        busy: set[Conversation] = set()
        while self._listener is not None or self._clients:
            for key, _ in self._selector.select(0 if busy else self._next_deadline()):
                if key.data is None:
                    assert self._listener is not None
                    self.add(self._listener.accept()[0])
                elif key.data.receive():
                    busy.add(key.data)
                else:
                    self._finish(key.data)
                    busy.discard(key.data)
            busy = {client for client in busy if client in self._clients and self._turn(client)}
            now = time.monotonic()
            for client in [one for one in self._clients if one.deadline is not None and one.deadline <= now]:
                self._drop(client)

    def _next_deadline(self) -> float | None:
        """Seconds until the next deadline."""
        deadlines = [client.deadline for client in self._clients if client.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _turn(self, client: Conversation) -> bool:
        """One packet of a client; whether there may be more."""
        try:
            return client.answer_one()
        except (OSError, RemoteError):
            self._drop(client)  # it went away, or spoke something else
            return False

    def _finish(self, client: Conversation) -> None:
        """Answers what a client had sent before it hung up."""
        while client in self._clients and self._turn(client):
            pass
        self._drop(client)

    def _drop(self, client: Conversation) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.connection)
            client.connection.close()


def serve(connection: socket.socket, target: ServedTarget) -> None:
    """Answers one client until it leaves, hangs up, or stops to make sense."""
    clients = Clients(None, lambda: target)
    clients.add(connection)
    clients.serve()
