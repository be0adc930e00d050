"""How does a kernel get a module that no distribution has? Its source is built with the kernel's headers and its suite's tools.

The tools need the libraries of their own suite, so they run with the folder that they were unpacked to as their root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.lab.apt import Unavailable, run
from tests.lab.fetch import cache_dir, ensure, ensure_build_root, locked

DRIVER = Path(__file__).parent / "driver"
NAME = "orclab"
# kbuild asks for these; in Debian, their packages' scripts make the links.
_LINKS = {"usr/bin/awk": "mawk", "bin/sh": "dash"}
# What the headers' makefiles would ask dpkg for.
_MACHINE = ["DEB_BUILD_ARCH=amd64", "DEB_HOST_ARCH=amd64", "CROSS_COMPILE=x86_64-linux-gnu-"]
_ENTER = 'mount --rbind /dev "$1/dev" && mount --rbind /proc "$1/proc" && exec chroot "$@"'


@dataclass(frozen=True, slots=True)
class BuiltModule:
    """A module that the lab built.

    Attributes:
        file: with debugging information.
        has_btf: whether its types are in it as BTF, which the kernel then keeps.
    """

    file: Path
    has_btf: bool


@dataclass(frozen=True, slots=True)
class ModuleSource:
    """A module's source: its folder, which has a Kbuild, and its name."""

    folder: Path
    name: str

    @property
    def files(self) -> tuple[str, ...]:
        """What is built."""
        return f"{self.name}.c", "Kbuild"

    @property
    def hash(self) -> str:
        """What the source is, in a few digits."""
        digest = hashlib.sha256()
        for name in self.files:
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()[:16]


ORCLAB = ModuleSource(DRIVER, NAME)


def source_hash() -> str:
    """What the driver's source is, in a few digits."""
    return ORCLAB.hash


def built_driver(name: str, source: ModuleSource = ORCLAB) -> BuiltModule:
    """The lab's driver, or another module of its own, for kernel `name`, built where the cache does not have it.

    Raises:
        Unavailable: its headers or tools could not be fetched, or do not run here.
    """
    kernel = ensure(name)
    file = cache_dir() / "built-modules" / f"{kernel.release}-{source.hash}" / f"{source.name}.ko"
    root = None if file.exists() else ensure_build_root(name)
    with locked(f"built-module-{name}"):
        if root is not None and not file.exists():
            _build(root, kernel.release, kernel.vmlinux, source, file)
    return BuiltModule(file, b"\0.BTF\0" in file.read_bytes())


def _build(root: Path, release: str, vmlinux: Path, module: ModuleSource, file: Path) -> None:
    """Builds the module in a folder of its own below the root, and puts its file where it is kept."""
    for folder in ("dev", "proc", "tmp", "build"):
        (root / folder).mkdir(exist_ok=True)
    for link, target in _LINKS.items():
        if not os.path.lexists(root / link):
            (root / link).symlink_to(target)
    headers = root / f"usr/src/linux-headers-{release}"
    # The module's BTF continues the kernel's, which the headers of newer suites bring along.
    if not (headers / "vmlinux").exists():
        os.link(vmlinux, headers / "vmlinux")

    # It fills in .BTF_ids, a section that the driver does not have; bookworm's package lacks it.
    resolver = headers / "tools/bpf/resolve_btfids/resolve_btfids"
    if not resolver.exists():
        resolver.parent.mkdir(parents=True, exist_ok=True)
        resolver.symlink_to("/bin/true")

    # Always the same folder, whose name is in the file: a module that is built again is the one that a cached scene holds.
    work = root / "build/driver"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        for source in module.files:
            shutil.copy(module.folder / source, work)
        inside = [f"/{path.relative_to(root)}" for path in (headers, work)]
        make = ["/usr/bin/make", "-C", inside[0], f"M={inside[1]}", *_MACHINE, "modules"]
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        run(["unshare", "--mount", *user, "sh", "-c", _ENTER, "sh", str(root), *make])
        made = work / f"{module.name}.ko"
        if not made.exists():
            raise Unavailable(f"no {made.name} was made for {release}")
        file.parent.mkdir(parents=True, exist_ok=True)
        made.rename(file)
    finally:
        shutil.rmtree(work, ignore_errors=True)
