"""A dom0: Xen boots with Debian's plain kernel as its first domain, which makes tasks as other guests do.

What QEMU dumps then is the whole machine, with the registers of its physical CPUs. Xen prints those of its virtual CPUs when
it is asked on its console.
"""

from __future__ import annotations

import gzip
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.lab import scripts
from tests.lab.fetch import Kernel, cache_dir, ensure_plain, locked, unpacked_packages
from tests.lab.guest import FIXED, QEMU, RAM, Guest, GuestError, Machine
from tests.lab.initramfs import build_initramfs, load_order
from tests.lab.program import sleeper_programs
from tests.lab.scenes import Scene, describe

XEN = "xen-hypervisor-4.17-amd64"  # of bookworm
MODULES = ("loop", "pktgen")
MEMORY, DOM0_MEMORY = 512, 280  # MiB
CONSOLE = "console"
BOOT_SECONDS, PRINT_SECONDS = 120.0, 5.0
ASKED = 4
# What a walk needs, and what functions keep.
COMPARED = ("rip", "rsp", "rbp", "rbx", "r12", "r13", "r14", "r15")
# Asleep while the snapshot is taken and Xen prints; then all of it once more, and work for as long as it is left running.
_END = f"""
show_stacks 1; sleep 1; show_stacks 2; sleep 1
echo {scripts.READY}; sleep 6; show_stacks 3
echo {scripts.BUSY}; while :; do cat /proc/*/stat; done > /dev/null 2>&1
"""
_TO_XEN = b"\x01\x01\x01"  # three times Ctrl-A: what follows is for Xen
_ITS_REGISTERS = b"0"
_REGISTER = re.compile(r"\b(r\w\w?|RIP): *(?:e0\w\w:\[<)?([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Dom0:
    """A kind of machine: the kernel of dom0, its virtual CPUs, and the physical ones."""

    kernel: str
    vcpus: int
    cpus: int

    def __str__(self) -> str:
        return f"{self.kernel}-{self.vcpus}on{self.cpus}"


# What a run draws from; and those with more vCPUs than CPUs, of which one is on no CPU whatever the others do. Their boot takes
# a minute and more, and one of three stood still in it.
CASES = tuple(Dom0(kernel, cpus, cpus) for kernel in ("5.10", "6.1") for cpus in (1, 2))
SLOW_CASES = tuple(Dom0(kernel, 2, 1) for kernel in ("5.10", "6.1"))


@dataclass(frozen=True, slots=True)
class XenMachine(Machine):
    """A machine that boots Xen; `kernel` is Xen's own, `initrd` the archive of dom0, whose kernel is `dom0`."""

    dom0: Path = Path()
    vcpus: int = 1

    def arguments(self, folder: Path, serial: Path) -> list[str]:
        """Return QEMU's command line with its sockets in `folder`."""
        # With other CPU models, Xen or dom0 stops at once (docs/facts.md).
        words = [QEMU, *FIXED.split(), "-cpu", "qemu64", "-smp", str(self.smp), "-m", str(self.memory)]
        words += ["-object", f"memory-backend-file,id=ram,size={self.memory}M,mem-path={folder / RAM},share=on"]
        words += ["-machine", "memory-backend=ram", "-kernel", str(self.kernel)]
        xen = f"console=com1 dom0_mem={DOM0_MEMORY}M dom0_max_vcpus={self.vcpus} loglvl=error"
        words += ["-append", xen, "-initrd", f"{self.dom0} console=hvc0 {self.append},{self.initrd}"]
        path = folder / CONSOLE
        words += [
            "-chardev",
            f"socket,id=com1,path={path},server=on,wait=off,logfile={serial}",
            "-serial",
            "chardev:com1",
        ]
        for what in ("qmp", "gdb"):
            words += [f"-{what}", f"unix:{folder / what},server=on,wait=off"]
        return words


def hypervisor() -> Path:
    """Return Xen as QEMU loads it: a 32-bit ELF file.

    Raises:
        Unavailable: it could not be fetched.
    """
    home = cache_dir() / "tools" / "xen.elf"
    with locked("xen"):
        if not home.exists():
            packed = next(unpacked_packages("bookworm", [XEN]).glob("boot/xen-*.gz"))
            home.with_suffix(".new").write_bytes(gzip.decompress(packed.read_bytes()))
            home.with_suffix(".new").rename(home)
    return home


@contextmanager
def booted(case: Dom0, home: Path, random: Random) -> Iterator[tuple[Guest, Kernel]]:
    """A dom0 that sleeps for some seconds.

    Raises:
        Unavailable: Xen, the kernel or the emulator cannot be had.
        GuestError: the guest did not come up.
    """
    kernel, xen = ensure_plain(case.kernel, MODULES), hypervisor()
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + scripts.write_tasks(random) + _END
    initrd = home / "initrd"
    archive = build_initramfs(init, load_order(kernel.modules, MODULES), sleeper_programs())
    initrd.write_bytes(gzip.compress(archive, 1))

    machine = XenMachine(xen, initrd, smp=case.cpus, memory=MEMORY, dom0=kernel.vmlinuz, vcpus=case.vcpus)
    with Guest(machine, home / "serial.log") as guest:
        guest.wait_for(scripts.READY, BOOT_SECONDS)
        time.sleep(0.5)
        yield guest, kernel


def printed_registers(guest: Guest, vcpus: int) -> dict[int, dict[str, int]]:
    """What Xen prints of the registers of dom0's vCPUs while the guest runs.

    Raises:
        GuestError: it does not.
    """
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(guest.folder / CONSOLE))
        console.settimeout(0.1)
        console.sendall(_TO_XEN)
        # The emulated line doubles or loses a character now and then: then it is asked once more.
        for _ in range(ASKED):
            before, deadline = len(guest.console()), time.monotonic() + PRINT_SECONDS
            console.sendall(_ITS_REGISTERS)
            while time.monotonic() < deadline:
                # What nobody takes stops the guest.
                with suppress(TimeoutError):
                    console.recv(1 << 16)
                found = _parse_registers(guest.console()[before:])
                if len(found) == vcpus:
                    return found
    raise GuestError("Xen does not print its vCPUs' registers")


def _parse_registers(text: str) -> dict[int, dict[str, int]]:
    """The registers by vCPU, of those that all needed ones were printed of."""
    found = {}
    for block in text.split("Dumping Dom0 vcpu#")[1:]:
        values = {name.lower(): int(value, 16) for name, value in _REGISTER.findall(block)}
        if block[0].isdigit() and values.keys() >= set(COMPARED):
            found[int(block[0])] = values
    return found


def scene_of(home: Path, kernel: Kernel, console: str) -> Scene:
    """What the console says of a snapshot `core` in the folder `home`."""
    return describe(home, kernel, "idle", console, kaslr=False)
