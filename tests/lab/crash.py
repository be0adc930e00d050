"""What does a real kdump leave: a guest that panics into its capture kernel, where makedumpfile writes every format?

Each dump goes to a disk of its own, without a file system: a raw disk is a dump with zeros behind it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

from tests.lab import scripts
from tests.lab.fetch import Kernel, unpacked_packages
from tests.lab.guest import Guest, Machine
from tests.lab.initramfs import build_initramfs, load_order
from tests.lab.program import BASE, HEADERS, PREVIOUS, Call, encode_calls, executable
from tests.lab.scenes import write_initrd

TOOLS_SUITE = "trixie"  # the first whose makedumpfile packs with zstd; none packs with snappy
TOOLS = [
    "makedumpfile",
    "libc6",
    "libdw1t64",
    "libelf1t64",
    "zlib1g",
    "libbz2-1.0",
    "liblzma5",
    "liblzo2-2",
    "libzstd1",
]
LIBRARIES = ("libc", "libdw", "libelf", "libz", "libbz2", "liblzma", "liblzo2", "libzstd")
LOADER = "ld-linux-x86-64.so.2"

MEMORY, RESERVED, DISK = 448, 192, 512  # MiB
CAPTURED, CRASHING = "CAPTURED", "CRASHING"
SECONDS = 300.0

# Name of each dump: how the capture kernel makes it. {} stands for its disk; for two of them in a split dump.
DUMPS = {
    "elf": "dd if=/proc/vmcore of={} bs=1M 2>/dev/null",
    "zlib": "makedumpfile -c -d 1 /proc/vmcore -f {}",
    "lzo-31": "makedumpfile -l -d 31 /proc/vmcore -f {}",
    "zstd-31": "makedumpfile -z -d 31 /proc/vmcore -f {}",
    "plain-31": "makedumpfile -d 31 /proc/vmcore -f {}",
    "elf-31": "makedumpfile -E -d 31 /proc/vmcore -f {}",
    "flat-31": "makedumpfile -F -c -d 31 /proc/vmcore > {}",
    "split-31": "makedumpfile --split -l -d 31 /proc/vmcore -f {} {}",
}
_KEXEC_FILE_LOAD, _EXIT, _ON_CRASH = 320, 60, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Crash:
    """The files of each dump by its name, and the console of both kernels."""

    kernel: Kernel
    dumps: dict[str, list[Path]]
    console: str


def kexec_program(options: str) -> bytes:
    """A program that loads the kernel on descriptor 3 and its initramfs on 4 for the next panic; its status is 0 then."""
    text = options.encode() + b"\0"

    def calls(address: int) -> list[Call]:
        return [(_KEXEC_FILE_LOAD, 3, 4, len(text), address, _ON_CRASH), (_EXIT, PREVIOUS)]

    size = len(encode_calls(calls(0)))
    return executable(encode_calls(calls(BASE + HEADERS + size)) + text)


def _tools() -> dict[str, bytes]:
    """makedumpfile's files by their path in the initramfs."""
    root = unpacked_packages(TOOLS_SUITE, TOOLS)
    files = {"tools/makedumpfile": (root / "usr/bin/makedumpfile").read_bytes()}
    folder = root / "usr/lib/x86_64-linux-gnu"
    for path in folder.iterdir():
        if path.name == LOADER or (path.name.split(".so.")[0] in LIBRARIES and ".so." in path.name):
            files[f"tools/{path.name}"] = path.read_bytes()
    return files


def _capture_init(disks: dict[str, list[str]]) -> str:
    lines = [
        "mkdir -p /tools",
        f'makedumpfile() {{ /tools/{LOADER} --library-path /tools /tools/makedumpfile "$@" > /tmp/log 2>&1; }}',
        f'flat() {{ /tools/{LOADER} --library-path /tools /tools/makedumpfile "$@" 2> /tmp/log; }}',
    ]
    for name, how in DUMPS.items():
        command = how.format(*disks[name])
        command = command.replace("makedumpfile", "flat", 1) if "-F" in command else command
        lines.append(f"{command} && echo DUMPED {name} || {{ echo FAILED {name}; cat /tmp/log; }}")
    return "\n".join([*lines, "sync", f"echo {CAPTURED}", "while :; do sleep 1000; done", ""])


def _disks(home: Path) -> tuple[dict[str, list[str]], dict[str, list[Path]]]:
    """Names in the guest and files here of the disks of each dump."""
    names: dict[str, list[str]] = {}
    files: dict[str, list[Path]] = {}
    number = 0
    for dump, how in DUMPS.items():
        for _ in range(how.count("{}")):
            path = home / f"{dump}-{number}"
            with path.open("wb") as file:
                file.truncate(DISK << 20)
            files.setdefault(dump, []).append(path)
            names.setdefault(dump, []).append(f"/dev/vd{chr(ord('a') + number)}")
            number += 1
    return names, files


def crash(kernel: Kernel, seed: int, home: Path) -> Crash:
    """Panics a guest and returns what its capture kernel wrote, in the folder `home`.

    Raises:
        Unavailable: makedumpfile or the emulator cannot be had.
        GuestError: the guest did not do its part.
    """
    random = Random(f"{kernel.name} crash {seed}")
    names, files = _disks(home)
    drivers = load_order(kernel.modules, ["virtio_pci", "virtio_blk"])
    capture = build_initramfs(_capture_init(names), drivers, {}, _tools())
    options = "console=ttyS0 nr_cpus=1 reset_devices loglevel=4"
    extra = {"capture/vmlinuz": kernel.vmlinuz.read_bytes(), "capture/initrd": capture}
    extra["bin/kexec_load"] = kexec_program(options)
    init = scripts.SHOW_STACKS + scripts.write_symbols(["_text"]) + scripts.write_tasks(random)
    init += "kexec_load 3</capture/vmlinuz 4</capture/initrd || echo no kexec: $?\nrm -r /capture\n"
    init += f"echo {CRASHING}; echo c > /proc/sysrq-trigger\n"
    initrd = write_initrd(home, kernel, init, random, extra)
    append = f"crashkernel={RESERVED}M" + " nokaslr" * (random.random() < 0.3)
    paths = tuple(path for group in files.values() for path in group)
    machine = Machine(kernel.vmlinuz, initrd, append, smp=2, memory=MEMORY, disks=paths)
    with Guest(machine, home / "serial.log") as guest:
        console = guest.wait_for(CAPTURED, SECONDS)
    return Crash(kernel, files, console)
