"""A GDB stub in a thread: one that answers as QEMU does, over a snapshot's memory, and can be told to misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from orcdbg.base.errors import MemoryFault, RemoteError
from orcdbg.gdb.packets import Kind, PacketReader, encode_packet
from orcdbg.snapshot.machine import Snapshot

NAMES = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)), "rip"),
    *("eflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "cr3", "cr4"),
)
WIDE = 17  # registers of 64 bits before those of 32
_HALF = ("eflags", "cs", "ss", "ds", "es", "fs", "gs")
_CORE = "".join(f'<reg name="{name}" bitsize="{32 if name in _HALF else 64}"/>' for name in NAMES)
DOCUMENTS = {
    "target.xml": '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>'
    '<architecture>i386:x86-64</architecture><xi:include href="64bit-core.xml"/></target>',
    "64bit-core.xml": f'<?xml version="1.0"?><feature name="org.gnu.gdb.i386.core">{_CORE}</feature>',
}
Answer = bytes | None
Connect = Callable[[socket.socket], None]


class MachineStub:
    """What QEMU's stub answers over a stopped machine; None is silence. `log` keeps what was asked."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.log: list[bytes] = []
        self.physical = False
        self.documents = dict(DOCUMENTS)
        self._cpu = 0

    def answer(self, question: bytes) -> Answer:
        """One packet's answer; empty for what is not known."""
        self.log.append(question)
        fixed = {b"?": b"T05thread:01;", b"vCont?": b"vCont;c;C;s;S", b"D": b"OK", b"qsThreadInfo": b"l"}
        if question in fixed:
            return fixed[question]
        if question.startswith(b"qSupported"):
            return b"PacketSize=1000;qXfer:features:read+;vContSupported+"
        if question.startswith(b"Qqemu.PhyMemMode:"):
            self.physical = question.endswith(b"1")
            return b"OK"
        if question == b"qfThreadInfo":
            return b"m" + b",".join(b"%02x" % (cpu.cpu + 1) for cpu in self.snapshot.cpus)
        if question.startswith(b"Hg"):
            self._cpu = int(question[2:], 16) - 1
            return b"OK"
        if question[:1] in b"zZ":
            return b"OK"
        if question.startswith(b"vCont"):
            return b"T05thread:01;"
        return self._data(question)

    def _data(self, question: bytes) -> Answer:
        if question == b"g":
            return self._registers()
        if question.startswith(b"m") and self.physical:
            address, size = (int(word, 16) for word in question[1:].split(b","))
            try:
                return self.snapshot.physical.read(address, size).hex().encode()
            except MemoryFault:
                return b"E14"
        if question.startswith(b"qXfer:features:read:"):
            name, _, place = question.decode().removeprefix("qXfer:features:read:").partition(":")
            start, size = (int(word, 16) for word in place.split(","))
            rest = self.documents[name].encode()[start:]
            return (b"m" if len(rest) > size else b"l") + rest[:size]
        return b""

    def _registers(self) -> bytes:
        cpu = self.snapshot.cpus[self._cpu]
        known = {**cpu.registers, "eflags": cpu.registers["rflags"], "cr3": cpu.cr3 or 0, "cr4": cpu.cr4 or 0}
        known["gs_base"] = cpu.gs_base or 0
        return b"".join((known[name] & (1 << 64) - 1).to_bytes(8, "little")[: 4 if name in _HALF else 8].hex().encode()
                        for name in NAMES)  # fmt: skip


class StubServer:
    """Listens on a unix socket in `folder`; `talk` is run with the connection of each client, one after another."""

    def __init__(self, folder: Path, talk: Connect) -> None:
        self.path = folder / "stub"
        self._talk = talk
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    self._talk(connection)
                except (OSError, RemoteError):
                    continue  # the client under test went away


def answering(answer: Callable[[bytes], Answer]) -> Connect:
    """A conversation by question and answer, with acknowledgements."""

    def talk(connection: socket.socket) -> None:
        reader = PacketReader()
        while data := connection.recv(65536):
            reader.feed(data)
            while (arrived := reader.take()) is not None:
                if arrived.kind is Kind.INTERRUPT:
                    connection.sendall(encode_packet(b"T02thread:01;"))
                if arrived.kind is Kind.PACKET:
                    connection.sendall(b"+")
                    said = answer(arrived.payload)
                    if said is not None:
                        connection.sendall(encode_packet(said))

    return talk
