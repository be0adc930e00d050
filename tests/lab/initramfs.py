"""What a guest boots into: a cpio archive of busybox, one init script, small programs and kernel modules."""

from __future__ import annotations

import lzma
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.lab.apt import Unavailable

BUSYBOX = Path("/bin/busybox")
CONSOLE = (5, 1)
PRELUDE = """#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /proc /sys /dev /tmp /run
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t tmpfs tmpfs /tmp
busybox --install -s /bin
echo 1 > /proc/sys/kernel/printk
for module in {modules}; do insmod /modules/$module.ko; done
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a cpio archive; `device` is (major, minor) for a device node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def encode_cpio(entries: Sequence[Entry]) -> bytes:
    """Encode `entries` in cpio's newc format (kernel: init/initramfs.c)."""
    trailer = Entry("TRAILER!!!", 0)
    return b"".join(_encode_entry(number, entry) for number, entry in enumerate([*entries, trailer], 1))


def _encode_entry(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def module_name(path: Path) -> str:
    """Return a module file's name as the kernel spells it: no suffixes, underscores."""
    return path.name.split(".")[0].replace("-", "_")


def module_files(folder: Path) -> dict[str, Path]:
    """Map the name of each module below `folder` to its file."""
    return {module_name(path): path for path in folder.rglob("*.ko*")}


def read_module(path: Path) -> bytes:
    """Return a module's ELF file, decompressed."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", str(path)], stdout=subprocess.PIPE, check=True).stdout
    return path.read_bytes()


def parse_depends(module: bytes) -> list[str]:
    """Return the modules that this one names in its .modinfo (Debian's packages come without modules.dep)."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in match.group(1).decode().split(",") if name] if match else []


def load_order(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the named modules and what they need, each after its needs: the order for insmod.

    Names that this kernel has built in, or not at all, are left out.
    """
    files, ordered = module_files(folder), dict[str, bytes]()

    def visit(name: str) -> None:
        if name in files and name not in ordered:
            module = read_module(files[name])
            for needed in parse_depends(module):
                visit(needed)
            ordered[name] = module

    for name in names:
        visit(name)
    return ordered


def build_initramfs(
    init: str, modules: dict[str, bytes], programs: dict[str, bytes], files: Mapping[str, bytes] = MappingProxyType({})
) -> bytes:
    """Return a cpio archive whose init mounts the usual, loads `modules` in order and goes on with `init`.

    Args:
        init: shell text.
        modules: ELF files by name, in load order.
        programs: executables by name, for /bin.
        files: further executables and files by their path, a folder's name and its own.

    Raises:
        Unavailable: this machine has no static busybox.
    """
    if not BUSYBOX.exists():
        raise Unavailable(f"no {BUSYBOX} (Debian: busybox-static)")
    script = PRELUDE.format(modules=" ".join(modules)) + init
    folders = dict.fromkeys(["dev", "bin", "modules", *(path.partition("/")[0] for path in files)])
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in folders]
    entries += [
        # Without it the kernel starts init with no output at all.
        Entry("dev/console", stat.S_IFCHR | 0o600, device=CONSOLE),
        Entry("init", stat.S_IFREG | 0o755, script.encode()),
        Entry("bin/busybox", stat.S_IFREG | 0o755, BUSYBOX.read_bytes()),
    ]
    entries += [Entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, data) for name, data in modules.items()]
    entries += [Entry(f"bin/{name}", stat.S_IFREG | 0o755, data) for name, data in programs.items()]
    entries += [Entry(path, stat.S_IFREG | 0o755, data) for path, data in files.items()]
    return encode_cpio(entries)
