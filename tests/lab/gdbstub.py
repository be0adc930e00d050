"""How does the lab stop a guest at an exact instruction? By the product's own client of the GDB remote protocol."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from orcdbg.base.errors import RemoteError
from orcdbg.gdb.client import Client, Refused
from orcdbg.gdb.endpoint import Endpoint

DEFAULT_SECONDS = 30.0
StubError = RemoteError

# QEMU's emulator ends `pause` by leaving its loop (helper_pause in target/i386/tcg/misc_helper.c), past the place where a step
# stops: `vCont;s` then runs the next instruction too, a breakpoint there or not (docs/facts.md).
PAUSE = b"\xf3\x90"

# hlt and mwait. A step lets no interrupt in, so it stays in them, or leaves them when QEMU finds work and runs on.
WAITING = (b"\xf4", b"\x0f\x01\xc9")
_LONGEST = 3  # bytes of these

# In the protocol's order.
REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip"),
)


class WaitsForInterrupt(StubError):
    """The next instruction waits for an interrupt, and a step lets none in: the guest can only be let run."""


class GdbStub:
    """A connection to a stub. Connecting stops the guest; leaving the `with` block lets it run again.

    Attributes:
        ram: the file that is the guest's memory, None where there is none.
        pauses: how many `pause` instructions `step` went past by itself.
    """

    def __init__(self, path: Path, timeout: float = DEFAULT_SECONDS, ram: BinaryIO | None = None) -> None:
        self.ram = ram
        self._timeout = timeout
        self._client = Client(Endpoint(path=str(path)), timeout)
        self._client.greet()
        self._thread = self._stopped = 1
        self._is_physical = False
        self.pauses = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self.detach()
        finally:
            self._client.close()

    def ask(self, payload: str) -> str:
        """Send a command and return the answer; StubError where the stub refuses it, or does not answer in time."""
        return self._client.ask(payload.encode()).decode()

    @property
    def stopped_cpu(self) -> int:
        """The CPU that stopped the guest, counted from 0."""
        return self._stopped - 1

    def read_registers(self) -> dict[str, int]:
        """Return the registers of the CPU that stopped the guest."""
        self._thread = self._stopped
        return self._client.registers(b"%x" % self._thread)

    def read_registers_of(self, cpu: int) -> dict[str, int]:
        """Return the registers of a CPU, counted from 0; `step` and `write_register` are about that one from now on."""
        self._thread = cpu + 1
        return self._client.registers(b"%x" % self._thread)

    def read_memory(self, address: int, size: int) -> bytes:
        """Return guest memory through the current CPU's page tables, or physical after `read_physical_memory`."""
        return self._client.read(address, size)

    def read_physical_memory(self) -> None:
        """From now on addresses of memory are physical."""
        self.ask("Qqemu.PhyMemMode:1")
        self._is_physical = True

    def write_register(self, name: str, value: int) -> None:
        """Change rip or one of the sixteen registers of the CPU whose registers were read last."""
        self.ask(f"P{REGISTERS.index(name):x}={value.to_bytes(8, 'little').hex()}")

    def write_memory(self, address: int, data: bytes) -> None:
        """Write guest memory, virtual or physical as it is read."""
        self.ask(f"M{address:x},{len(data):x}:{data.hex()}")

    def set_breakpoint(self, address: int) -> None:
        """Set a hardware breakpoint: it leaves the guest's text alone."""
        self.ask(f"Z1,{address:x},1")

    def clear_breakpoint(self, address: int) -> None:
        """Remove a hardware breakpoint."""
        self.ask(f"z1,{address:x},1")

    def step(self) -> None:
        """Execute one instruction of the CPU whose registers were read last, and of no other CPU.

        `pause` is gone past by hand, for QEMU would run the next instruction with it. It changes nothing but rip.

        Raises:
            WaitsForInterrupt: the instruction is hlt or mwait.
            StubError: the guest does not step.
        """
        self.ask(f"Hg{self._thread:x}")
        ip = int.from_bytes(bytes.fromhex(self.ask(f"p{REGISTERS.index('rip'):x}")), "little")
        code = self._read_code(ip)

        if code.startswith(WAITING):
            raise WaitsForInterrupt(f"the instruction at {ip:#x} waits for an interrupt")

        if code.startswith(PAUSE):
            self.write_register("rip", ip + len(PAUSE))
            self.pauses += 1
            return

        self.step_as_qemu_does()

    def step_as_qemu_does(self) -> None:
        """Let QEMU step the CPU whose registers were read last, by one instruction or more; the other CPUs stand still."""
        self._client.start(b"vCont;s:%x" % self._thread)
        if self._client.wait(self._timeout) is None:
            raise StubError("the guest does not step")

    def _read_code(self, ip: int) -> bytes:
        """The first bytes of the instruction at a virtual address; none where they cannot be read."""
        if self._is_physical:
            self.ask("Qqemu.PhyMemMode:0")
        try:
            for size in range(_LONGEST, 0, -1):  # a page that cannot be read may follow
                with contextlib.suppress(Refused):
                    return self._client.read(ip, size)
            return b""  # the step raises a page fault
        finally:
            if self._is_physical:
                self.ask("Qqemu.PhyMemMode:1")

    def resume(self, timeout: float) -> bool:
        """Let the guest run until it stops, at most `timeout` seconds; tell whether it stopped by itself."""
        self.start()
        stop = self._client.wait(timeout)
        if stop is None:
            self.interrupt()
            return False
        self._stopped = int((stop.thread or b"1").rpartition(b".")[2], 16)  # as the stub counts CPUs, from 1
        return True

    def start(self) -> None:
        """Let the guest run and return at once; `interrupt` stops it."""
        self._client.start(b"vCont;c")

    def interrupt(self) -> None:
        """Stop the running guest."""
        self._client.interrupt()

    def skip_breakpoint(self, address: int) -> None:
        """Step off a breakpoint that was just hit, which would otherwise hit again at once."""
        self.clear_breakpoint(address)
        self.step()
        self.set_breakpoint(address)

    def detach(self) -> None:
        """Let the guest run without us."""
        self._client.find(b"Qqemu.PhyMemMode:0")
        self.ask("D")
