"""How is a running machine, stopped for a while through its GDB stub, the same as a snapshot?

Its physical memory is an AddressSpace, its CPUs are `CpuState`s, and both hold until it is moved. Made for QEMU's stub,
which reads physical memory when it is asked to (since QEMU 4.1).
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from orcdbg.base.errors import NotFound, NotInSnapshot, OrcdbgError, RemoteError
from orcdbg.base.sizes import PAGE
from orcdbg.gdb.client import SECONDS, Client, Refused, StopReply
from orcdbg.gdb.endpoint import Endpoint
from orcdbg.gdb.stops import BreakKind, GuestStop, StopReason
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.placement import MAPPED_IDT

MAX_PAGES = 1 << 14
# The stub's names of what `struct pt_regs` calls otherwise, and the registers that no snapshot has under `registers`.
_RENAMED = {"eflags": "rflags"}
_GENERAL = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base"),
)
_SIGINT, _SIGTRAP = 2, 5
_LAST_WORDS = (b"Qqemu.PhyMemMode:0", b"D")
_NO_PHYSICAL = "the stub does not read physical memory"


class GuestMemory:
    """Physical memory of the stopped machine: an AddressSpace. Pages are kept until `forget`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pages: dict[int, bytes | None] = {}

    def forget(self) -> None:
        """Drops all pages: the machine moved."""
        self._pages.clear()

    def _page(self, number: int) -> bytes | None:
        """A page by its number; None where the stub has none."""
        if number not in self._pages:
            if len(self._pages) >= MAX_PAGES:
                self._pages.clear()
            try:
                self._pages[number] = self._client.read(number * PAGE, PAGE)
            except Refused:
                # A machine that runs refuses every question; that says nothing about this page.
                if self._client.is_running:
                    raise
                self._pages[number] = None
        return self._pages[number]

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; NotInSnapshot where the stub has none, RemoteError where it fails."""
        memory = b""
        while True:
            number, offset = divmod(address + len(memory), PAGE)
            page = self._page(number)
            if page is None:
                raise NotInSnapshot("physical", address, size)
            memory += page[offset : offset + size - len(memory)]
            if len(memory) >= size:
                return memory


class Guest:
    """A machine behind a stub. Connecting stops it; `close`, or the end of the `with` block, lets it run on.

    Args:
        endpoint: where the stub listens.
        seconds: how long one answer may take.

    Raises:
        RemoteError: nobody listens, or not a stub that can be worked with.
    """

    def __init__(self, endpoint: Endpoint, seconds: float = SECONDS) -> None:
        self._client = Client(endpoint, seconds)
        self._breakpoints: set[tuple[BreakKind, int, int]] = set()
        self.memory = GuestMemory(self._client)
        try:
            greeting = self._client.greet()
            self._threads = self._client.threads()
            if self._client.find(b"Qqemu.PhyMemMode:1") != b"OK":
                raise RemoteError(f"{endpoint}: {_NO_PHYSICAL}", "QEMU's does, since 4.1")
            self.stop = self._stopped(greeting, StopReason.INTERRUPT)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether the machine runs at this moment."""
        return self._client.is_running

    @property
    def breakpoints(self) -> frozenset[tuple[BreakKind, int, int]]:
        """What is set: kind, address and size of each breakpoint and watchpoint."""
        return frozenset(self._breakpoints)

    @property
    def cpus(self) -> int:
        """How many CPUs there are."""
        return len(self._threads)

    def close(self) -> None:
        """Takes everything back and lets the machine run; what cannot be said to the stub any more is left unsaid."""
        try:
            if self._client.is_running:
                self._client.interrupt()
            for kind, address, size in sorted(self._breakpoints, key=lambda one: (one[0].value, *one[1:])):
                self._client.find(self._break_packet(b"z", kind, address, size))
            for words in _LAST_WORDS:
                self._client.find(words)
        except RemoteError:
            pass  # the other side went away, or no longer makes sense: what is still to be said is said below
        finally:
            self._client.close(_LAST_WORDS)

    # Looking

    def registers(self, cpu: int) -> dict[str, int]:
        """All registers that the stub tells of a CPU, by its own names."""
        return self._client.registers(self._thread(cpu))

    def _thread(self, cpu: int) -> bytes:
        if not 0 <= cpu < len(self._threads):
            raise NotFound("CPU", str(cpu), f"the stub has {len(self._threads)}")
        return self._threads[cpu]

    def cpu_state(self, cpu: int) -> CpuState:
        """A CPU's registers as a snapshot has them."""
        told = self.registers(cpu)
        return CpuState(
            cpu=cpu,
            source=f"GDB stub cpu {cpu}",
            registers={_RENAMED.get(name, name): told[name] for name in _GENERAL if name in told},
            pid=cpu + 1,
            cr3=told.get("cr3"),
            cr4=told.get("cr4"),
            # No stub tells the IDT: it is where the kernel maps it.
            idt=MAPPED_IDT,
            gs_base=told.get("gs_base"),
            kernel_gs_base=told.get("k_gs_base"),
        )

    def snapshot(self) -> Snapshot:
        """The machine as it is stopped now."""
        states = [self.cpu_state(cpu) for cpu in range(len(self._threads))]
        return Snapshot(
            path=str(self._client.endpoint),
            format="live guest (GDB remote protocol)",
            physical=self.memory,
            cpus=states,
            vmcoreinfo={},
            # No `ranges` and no `left_out`: a stub does not say which memory there is.
        )

    # Moving

    def set_breakpoint(self, address: int, kind: BreakKind = BreakKind.HARDWARE, size: int = 1) -> None:
        """Sets a breakpoint, or a watchpoint on data.

        Raises:
            RemoteError: the stub refuses it.
        """
        self._client.command(self._break_packet(b"Z", kind, address, size))
        self._breakpoints.add((kind, address, size))

    def clear_breakpoint(self, address: int, kind: BreakKind = BreakKind.HARDWARE, size: int = 1) -> None:
        """Takes a breakpoint or watchpoint back."""
        self._client.command(self._break_packet(b"z", kind, address, size))
        self._breakpoints.discard((kind, address, size))

    @staticmethod
    def _break_packet(letter: bytes, kind: BreakKind, address: int, size: int) -> bytes:
        return b"%s%s,%x,%x" % (letter, kind.value, address, size)

    def step(self, cpu: int) -> GuestStop:
        """Runs one instruction of one CPU, the others standing still."""
        self._move(b"vCont;s:" + self._thread(cpu))
        stop = self._client.wait(SECONDS)
        if stop is None:
            stop = self._client.interrupt()
        return self._arrive(stop, StopReason.STEP)

    def resume(self, seconds: float | None = None) -> GuestStop:
        """Lets all CPUs run until something stops them: a breakpoint, Ctrl-C, or the end of `seconds`."""
        self._leave_breakpoint()
        try:
            self._move(b"vCont;c")
            stop = self._client.wait(seconds)
        except KeyboardInterrupt:
            if not self.is_running:
                raise
            stop = None
        return self._arrive(stop, StopReason.BREAKPOINT) if stop is not None else self.interrupt()

    def start(self) -> None:
        """Lets all CPUs run, and does not wait."""
        self._leave_breakpoint()
        self._move(b"vCont;c")

    def interrupt(self) -> GuestStop:
        """Stops the machine that runs."""
        if not self.is_running:
            raise OrcdbgError("the machine is stopped already")
        return self._arrive(self._client.interrupt(), StopReason.INTERRUPT)

    def _leave_breakpoint(self) -> None:
        """Steps off breakpoints that CPUs stand on, which would hit again at once."""
        places = {address: (kind, size) for kind, address, size in self._breakpoints if kind.is_of_code}
        for cpu in range(len(self._threads) if places else 0):
            ip = self.registers(cpu)["rip"]
            if ip in places:
                kind, size = places[ip]
                self.clear_breakpoint(ip, kind, size)
                try:
                    self.step(cpu)
                finally:
                    self.set_breakpoint(ip, kind, size)

    def _move(self, action: bytes) -> None:
        self.memory.forget()
        self._client.start(action)

    def _arrive(self, reply: StopReply, expected: StopReason) -> GuestStop:
        self.memory.forget()
        self.stop = self._stopped(reply, expected)
        return self.stop

    def _stopped(self, reply: StopReply, expected: StopReason) -> GuestStop:
        """A stop reply in our words."""
        cpu = 0
        if reply.thread is not None:
            # A name is `pPROCESS.THREAD` or the thread's number alone, and QEMU uses both forms.
            numbers = {int(name.rpartition(b".")[2], 16): index for index, name in enumerate(self._threads)}
            cpu = numbers.get(int(reply.thread.rpartition(b".")[2], 16), 0)

        ip = self.registers(cpu)["rip"]
        if reply.watched is not None:
            return GuestStop(StopReason.WATCHPOINT, cpu, ip, reply.watched)
        if reply.signal not in (0, _SIGINT, _SIGTRAP):
            return GuestStop(StopReason.SIGNAL, cpu, ip, signal=reply.signal)

        reason = StopReason.INTERRUPT if reply.signal in (0, _SIGINT) else expected
        return GuestStop(reason, cpu, ip)
