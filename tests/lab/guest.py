"""How a kernel runs in the lab: one QEMU process with its serial log, its monitor and its GDB stub, always ended."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from qemu.qmp import ExecInterruptedError, QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from tests.lab.apt import Unavailable
from tests.lab.gdbstub import GdbStub

RAM = "ram"  # the file that is the guest's memory, by physical address
SHARED_MEMORY = Path("/dev/shm")
QEMU = "qemu-system-x86_64"
# thread=multi makes 6.12 and later die with an int3 oops while text is being patched: an emulator fault.
FIXED = "-nodefaults -no-user-config -display none -no-reboot -net none -accel tcg,thread=single"
START_SECONDS = 30.0
MONITOR_SECONDS = 120.0
POLL_SECONDS = 0.05
DEATH_SECONDS = 1.0
CPU_TIME_LIMIT = 1800  # seconds; far beyond any scene, so that a forgotten guest ends by itself

_T = TypeVar("_T")


class GuestError(Exception):
    """The guest died, or did not say in time what it should have.

    Attributes:
        console: all that it had printed, where that is known: whoever reports the failure shows the end of it.
    """

    console: str = ""


MEMORY = 256  # MiB, where a test asks for no other size
# QEMU 7.2 loses the flags of CMPXCHG16B: an interrupt right behind one returns with garbage in TF, IF, DF or NT, and the guest
# hangs, dies, or copies backwards (docs/facts.md).
WITHOUT_CX16 = ",-cx16"
CPU = f"max{WITHOUT_CX16}"


@dataclass(frozen=True, slots=True)
class Machine:
    """What to boot. `memory` is in MiB; `append` is added to the kernel's command line."""

    kernel: Path
    initrd: Path
    append: str = ""
    cpu: str = CPU
    smp: int = 1
    memory: int = MEMORY
    vmcoreinfo: bool = True
    disks: tuple[Path, ...] = ()

    def arguments(self, folder: Path, serial: Path) -> list[str]:
        """Return QEMU's command line with its sockets in `folder`."""
        words = [QEMU, *FIXED.split(), "-cpu", self.cpu, "-smp", str(self.smp), "-m", str(self.memory)]
        # In a file, so that a stopped guest's memory is read without a packet for each page: see `live.py`.
        words += ["-object", f"memory-backend-file,id=ram,size={self.memory}M,mem-path={folder / RAM},share=on"]
        words += ["-machine", "memory-backend=ram"]
        words += ["-serial", f"file:{serial}", "-kernel", str(self.kernel), "-initrd", str(self.initrd)]
        for what in ("qmp", "gdb"):
            words += [f"-{what}", f"unix:{folder / what},server=on,wait=off"]
        words += ["-device", "vmcoreinfo"] if self.vmcoreinfo else []
        for number, disk in enumerate(self.disks):
            words += ["-drive", f"if=none,id=disk{number},format=raw,cache=unsafe,file={disk}"]
            words += ["-device", f"virtio-blk-pci,drive=disk{number}"]
        return [*words, "-append", f"console=ttyS0 {self.append}"]


class Guest:
    """A running machine; use it in a `with` block, whose end kills it whatever happened.

    Args:
        machine: what to boot.
        serial: the file that receives the guest's console.
    """

    def __init__(self, machine: Machine, serial: Path) -> None:
        self.machine = machine
        self.serial = serial
        in_memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="orcdbg-guest-", dir=in_memory))
        self._ram: BinaryIO | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: QEMUMonitorProtocol | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, GuestError) and not error.console:
            error.console = self.console()  # now: the file's folder may be gone before the failure is reported
        self.close()

    def close(self) -> None:
        """Kill QEMU and remove its sockets."""
        try:
            if self._monitor:
                self._monitor.close()
        except (EOFError, OSError, QMPError):
            pass  # it went away first
        finally:
            self._monitor = None
            if self._process:
                self._process.kill()
                self._process.wait()
            if self._ram:
                self._ram.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def death(self) -> str | None:
        """The guest's last words, where it has panicked; waits a moment for QEMU to end."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(DEATH_SECONDS)
        return self.last_words()

    def last_words(self) -> str | None:
        """The line of its panic that the guest has printed by now."""
        return next((line for line in self.console().splitlines() if "Kernel panic" in line), None)

    def console(self) -> str:
        """Return what the guest has printed so far."""
        return self.serial.read_text("utf-8", "replace") if self.serial.exists() else ""

    def wait_for(self, marker: str, timeout: float) -> str:
        """Return the console once `marker` is in it.

        Raises:
            GuestError: the guest died or kept silent.
        """
        found = self._poll(lambda: marker in self.console(), timeout)
        if not found:
            raise GuestError(f"no {marker!r} after {timeout:g} s; the console ends {self.console()[-400:]!r}")
        return self.console()

    def qmp(self, command: str, **arguments: object) -> object:
        """Execute a monitor command and return its result.

        Raises:
            GuestError: there is no monitor, or no more.
            qemu.qmp.legacy.QMPError: the command failed.
        """
        if not self._monitor:
            raise GuestError("not running")
        try:
            return self._monitor.cmd(command, **arguments)
        except (EOFError, ExecInterruptedError) as error:
            raise GuestError(f"QEMU ended; the console ends {self.console()[-400:]!r}") from error

    def stub(self) -> GdbStub:
        """Connect to the GDB stub, which stops the guest."""
        return GdbStub(self.gdb_socket, ram=self._ram)

    @property
    def folder(self) -> Path:
        """Where its sockets are."""
        return self._folder

    @property
    def gdb_socket(self) -> Path:
        """Where the GDB stub listens."""
        return self._folder / "gdb"

    def is_running(self) -> bool:
        """Tell whether its CPUs run."""
        status = self.qmp("query-status")
        return isinstance(status, dict) and bool(status["running"])

    def dump(self, path: Path, form: str = "elf") -> None:
        """Stop the guest and write its memory and registers to a file at `path`: an ELF core, or another of QEMU's forms."""
        self.qmp("stop")
        self.qmp("dump-guest-memory", paging=False, protocol=f"file:{path}", format=form)
        path.chmod(0o644)  # QEMU lets only the owner read

    def resume(self) -> None:
        """Let a stopped guest go on."""
        self.qmp("cont")

    def _start(self) -> None:
        if not shutil.which(QEMU):
            raise Unavailable(f"no {QEMU} here")
        command = self.machine.arguments(self._folder, self.serial)
        # Should this process be killed outright, the kernel ends the guest too; the limit catches what is left.
        guard = ["setpriv", "--pdeathsig", "KILL", "--", "prlimit", f"--cpu={CPU_TIME_LIMIT}", "--"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen([*guard, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if not self._poll(lambda: (self._folder / "gdb").is_socket(), START_SECONDS):
            raise GuestError("QEMU made no sockets")
        # Its name goes at once: whatever happens to this process, the memory is given back when QEMU ends.
        self._ram = (self._folder / RAM).open("rb")
        (self._folder / RAM).unlink()
        self._monitor = QEMUMonitorProtocol(str(self._folder / "qmp"))
        self._monitor.settimeout(MONITOR_SECONDS)
        self._monitor.connect()

    def _poll(self, condition: Callable[[], _T], timeout: float) -> _T | None:
        """Return the first true value of `condition` within `timeout` seconds, else None."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            self._check_alive()
            time.sleep(POLL_SECONDS)
        return None

    def _check_alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            log = self._folder / "log"
            raise GuestError(f"QEMU ended: {log.read_text('utf-8', 'replace')[-400:] if log.exists() else ''}")
