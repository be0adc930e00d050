"""How does orcdbg run inside a guest, on the memory of the kernel that runs it? On this machine's Python, from a disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tests.lab.apt import Unavailable
from tests.lab.fetch import Kernel
from tests.lab.initramfs import load_order

Ignore = Callable[[str, list[str]], set[str]]
DISK = 700  # MiB
DRIVERS = ("virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_intel", "ext4")
# What the tests need and orcdbg does not; some of it is large.
NOT_NEEDED = (
    *(
        "drgn*",
        "_drgn*",
        "mypy*",
        "hypothesis*",
        "pip*",
        "ruff*",
        "grimp*",
        "importlinter*",
        "import_linter*",
        "_pytest",
    ),
    *(
        "pytest*",
        "setuptools*",
        "_distutils_hack*",
        "sphinx*",
        "babel*",
        "docutils*",
        "test",
        "tests",
        "ast_serialize*",
    ),
    *("__pycache__", "idlelib", "lib2to3", "tkinter", "ensurepip", "turtledemo", "config-*", "*.a", "site-packages"),
)
PROJECT = Path(__file__).parents[2]
MOUNT = """
mkdir -p /disk; mount -t ext4 -o ro /dev/vda /disk; mount -t proc proc /disk/proc; mount -t devtmpfs devtmpfs /disk/dev
mount -t tmpfs tmpfs /disk/tmp
inside_python() {{ chroot /disk {python} -B "$@" 2>&1; }}
inside() {{ inside_python -P -m orcdbg /vmlinux /proc/kcore "$@"; }}
"""


def disk(kernel: Kernel, home: Path, files: Mapping[str, bytes]) -> Path:
    """A file system with the project, the Python that runs this, the kernel's image without its lines, and some files.

    Raises:
        Unavailable: a tool is missing.
    """
    root, path = home / "root", home / "disk"
    for folder in ("proc", "dev", "tmp", "project"):
        (root / folder).mkdir(parents=True)
    python = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    ignore = shutil.ignore_patterns(*NOT_NEEDED)
    _copy(root, python, ignore)
    shutil.copytree(packages, root / "packages", ignore=ignore, symlinks=True)
    for finder in (root / "packages").glob("__editable__*"):
        finder.unlink()  # it names the project's place on this machine
    shutil.copytree(PROJECT / "orcdbg", root / "packages" / "orcdbg", ignore=ignore)
    binary = Path(sys.executable).resolve()
    _copy_file(root, binary)
    for library in _libraries([binary, *root.rglob("*.so*")]):
        _copy_file(root, library)
    for name, data in files.items():
        (root / name).write_bytes(data)
    _run("strip", "--strip-debug", "-o", root / "vmlinux", kernel.vmlinux)
    path.unlink(missing_ok=True)
    _run("mke2fs", "-q", "-t", "ext4", "-d", root, path, f"{DISK}M")
    shutil.rmtree(root)
    return path


def mount() -> str:
    """Shell text after which `inside WORDS` runs orcdbg in the guest, and `inside_python FILE` a script."""
    environment = f"env PYTHONPATH=/packages PYTHONHOME={sys.base_prefix} HOME=/tmp LC_ALL=C.UTF-8"
    return MOUNT.format(python=f"{environment} {Path(sys.executable).resolve()}")


def drivers(kernel: Kernel) -> dict[str, bytes]:
    """The modules that the disk needs, in the order in which they are loaded."""
    return load_order(kernel.modules, DRIVERS)


def _copy(root: Path, folder: Path, ignore: Ignore) -> None:
    shutil.copytree(folder, root / folder.relative_to("/"), ignore=ignore, symlinks=True)


def _copy_file(root: Path, path: Path) -> None:
    to = root / path.relative_to("/")
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        shutil.copy(path, to)


def _libraries(programs: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries that they are linked with, the loader too."""
    found = set[str]()
    for program in programs:
        text = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        found |= set(re.findall(r"(/\S+) \(0x", text))
    for name in sorted(found):
        if "/packages/" not in name:
            yield Path(name)


def _run(*words: object) -> None:
    try:
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
    except FileNotFoundError as error:
        raise Unavailable(f"no {words[0]} here") from error
