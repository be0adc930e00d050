"""How the lab stops a guest at an exact instruction: a small client of the GDB remote protocol, as QEMU speaks it."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

LEGACY = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"]
GENERAL = [*LEGACY, *(f"r{number}" for number in range(8, 16)), "rip"]
SEGMENTS = ["eflags", "cs", "ss", "ds", "es", "fs", "gs"]
BASES = ["fs_base", "gs_base", "k_gs_base", "cr0", "cr2", "cr3", "cr4", "cr8", "efer"]
DEFAULT_SECONDS = 30.0


class StubError(Exception):
    """The stub refused a command, broke the protocol, or did not answer in time."""


def encode_packet(payload: str) -> bytes:
    """Frame `payload`: a dollar, the text, a hash, two digits of checksum."""
    body = payload.encode("ascii")
    return b"$%s#%02x" % (body, sum(body) & 0xFF)


def parse_registers(data: bytes) -> dict[str, int]:
    """Name the values of a `g` answer of QEMU's x86-64 target (qemu: gdb-xml/i386-64bit.xml)."""
    values = struct.unpack_from(f"<{len(GENERAL)}Q{len(SEGMENTS)}I{len(BASES)}Q", data)
    return dict(zip(GENERAL + SEGMENTS + BASES, values, strict=True))


class GdbStub:
    """A connection to a stub. Connecting stops the guest; leaving the `with` block lets it run again."""

    def __init__(self, path: Path, timeout: float = DEFAULT_SECONDS) -> None:
        self._timeout = timeout
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self.ask("?")
        # QEMU reports its stopping by itself too, now or a little later; a question with another answer clears both.
        self.ask("Hg1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self.detach()
        finally:
            self._socket.close()

    def ask(self, payload: str, timeout: float | None = None) -> str:
        """Send a command and return the answer.

        Raises:
            StubError: no answer in time, or an error answer.
        """
        self._socket.sendall(encode_packet(payload))
        answer = self._receive(timeout or self._timeout)
        while answer.startswith("T") and payload not in ("?", "c", "s"):
            answer = self._receive(self._timeout)
        if answer.startswith("E"):
            raise StubError(f"{payload}: {answer}")
        return answer

    def read_registers(self, thread: int = 1) -> dict[str, int]:
        """Return the registers of a CPU, counted from 1 as the stub does."""
        self.ask(f"Hg{thread}")
        return parse_registers(bytes.fromhex(self.ask("g")))

    def read_memory(self, address: int, size: int) -> bytes:
        """Return guest memory through the current CPU's page tables."""
        return bytes.fromhex(self.ask(f"m{address:x},{size:x}"))

    def set_breakpoint(self, address: int) -> None:
        """Set a hardware breakpoint: it leaves the guest's text alone."""
        self.ask(f"Z1,{address:x},1")

    def clear_breakpoint(self, address: int) -> None:
        """Remove a hardware breakpoint."""
        self.ask(f"z1,{address:x},1")

    def step(self) -> str:
        """Execute one instruction and return the stop reason."""
        return self.ask("s")

    def resume(self, timeout: float) -> bool:
        """Let the guest run until it stops, at most `timeout` seconds; tell whether it stopped by itself."""
        try:
            self.ask("c", timeout)
        except TimeoutError:
            self.interrupt()
            return False
        return True

    def start(self) -> None:
        """Let the guest run and return at once; `interrupt` stops it."""
        self._socket.sendall(encode_packet("c"))

    def interrupt(self) -> str:
        """Stop the running guest and return the stop reason."""
        self._socket.sendall(b"\x03")
        return self._receive(self._timeout)

    def skip_breakpoint(self, address: int) -> None:
        """Step off a breakpoint that was just hit, which would otherwise hit again at once."""
        self.clear_breakpoint(address)
        self.step()
        self.set_breakpoint(address)

    def detach(self) -> None:
        """Let the guest run without us."""
        self.ask("D")

    def _receive(self, timeout: float) -> str:
        deadline = time.monotonic() + timeout
        while True:
            # Acknowledgements may stand before the packet.
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start + 1)
            if start >= 0 and 0 <= end <= len(self._buffer) - 3:
                return self._take(start, end)
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._socket.recv(65536)
            if not data:
                raise StubError("the stub hung up")
            self._buffer += data

    def _take(self, start: int, end: int) -> str:
        body, checksum = self._buffer[start + 1 : end], self._buffer[end + 1 : end + 3]
        self._buffer = self._buffer[end + 3 :]
        if sum(body) & 0xFF != int(checksum, 16):
            raise StubError("wrong checksum")
        self._socket.sendall(b"+")
        return body.decode("ascii")
