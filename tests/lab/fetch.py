"""Which real kernels the lab has, where they lie in its cache, and how they come from the Debian archive."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.apt import Archive, Unavailable

__all__ = [
    *("RELEASES", "Kernel", "Unavailable", "cache_dir", "ensure", "ensure_build_root", "ensure_module_debug"),
    *("ensure_plain", "ensure_source", "locked"),
    "unpacked_packages",
]

# Four kernels cover every ORC layout and every generation of runtime patching.
RELEASES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "7.2": "sid"}
META_PACKAGE = "linux-image-cloud-amd64"
# The kernel for all machines, which the cloud's is a part of: it alone runs under Xen.
PLAIN_META_PACKAGE = "linux-image-amd64"
# What kbuild runs beside the compiler; pahole, of dwarves, makes BTF.
BUILD_TOOLS = [
    *("make", "dwarves", "base-files", "dash", "bash", "coreutils", "sed", "grep", "mawk", "findutils", "diffutils"),
]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A fetched kernel.

    Attributes:
        name: the lab's short name, a key of `RELEASES`.
        release: what `uname -r` says in the guest.
        vmlinux: the ELF file with DWARF.
        vmlinuz: the bootable image.
        modules: the folder /lib/modules/RELEASE.
    """

    name: str
    release: str
    vmlinux: Path
    vmlinuz: Path
    modules: Path


def cache_dir() -> Path:
    """Return the folder that holds everything the lab fetched and made."""
    named = os.environ.get("ORCDBG_LAB_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(named) if named else Path(base) / "orcdbg-lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def ensure(name: str) -> Kernel:
    """Return the kernel `name`, fetching it first where the cache does not have it.

    Raises:
        Unavailable: it could not be fetched.
        KeyError: the lab knows no such kernel.
    """
    suite = RELEASES[name]
    home = cache_dir() / "kernels" / name
    with locked(f"kernel-{name}"):
        if not home.is_dir():
            _fetch_kernel(suite, home)
    return _open_kernel(name, home)


def ensure_plain(name: str, modules: Sequence[str]) -> Kernel:
    """Return Debian's plain kernel of `name`, with some of its modules, fetching it first where the cache does not have it.

    Its `vmlinux` is the bootable image, which orcdbg opens too: the debug package of this flavour takes 800 MB to fetch.

    Raises:
        Unavailable: it could not be fetched.
    """
    home = cache_dir() / "plain-kernels" / name
    with locked(f"plain-kernel-{name}"), _scratch() as scratch:
        if not home.is_dir():
            archive = _updated_archive(RELEASES[name])
            release = _current_release(archive, PLAIN_META_PACKAGE)
            archive.download([f"linux-image-{release}"], scratch / "debs")
            wanted = ["*/vmlinuz-*", *(f"*/{module}.ko*" for module in modules)]
            _unpack(next((scratch / "debs").glob("*.deb")), scratch / "root", *wanted)
            (scratch / "kernel/modules").mkdir(parents=True)
            _one(scratch / "root", "vmlinuz-*").rename(scratch / "kernel/vmlinuz")
            _one(scratch / "root/lib/modules", release).rename(scratch / "kernel/modules" / release)
            home.parent.mkdir(parents=True, exist_ok=True)
            (scratch / "kernel").rename(home)
    (folder,) = (home / "modules").iterdir()
    return Kernel(name, folder.name, home / "vmlinuz", home / "vmlinuz", folder)


def ensure_source(name: str) -> Path:
    """Return the path of the linux-source tarball of kernel `name`.

    Raises:
        Unavailable: it could not be fetched.
    """
    home = cache_dir() / "sources" / f"linux-source-{name}.tar.xz"
    with locked(f"source-{name}"), _scratch() as scratch:
        if not home.exists():
            archive = _updated_archive(RELEASES[name])
            archive.download([f"linux-source-{name}"], scratch / "debs")
            _unpack(next((scratch / "debs").glob("*.deb")), scratch / "root", f"*/{home.name}")
            home.parent.mkdir(parents=True, exist_ok=True)
            _one(scratch / "root", home.name).rename(home)
    return home


def ensure_module_debug(name: str, modules: Sequence[str]) -> Path:
    """Return a folder with the debugging information of some modules of kernel `name`, as Debian splits it off.

    Raises:
        Unavailable: it could not be fetched, or the archive has the kernel's release no more.
    """
    kernel = ensure(name)
    home = cache_dir() / "module-debug" / name
    with locked(f"module-debug-{name}"), _scratch() as scratch:
        if not home.is_dir():
            _updated_archive(RELEASES[name]).download([f"linux-image-{kernel.release}-dbg"], scratch / "debs")
            deb = next((scratch / "debs").glob("*.deb"))
            _unpack(deb, scratch / "root", f"*/{kernel.release}/kernel/*.ko*")
            for path in (scratch / "root").rglob("*.ko*"):
                if path.name.partition(".")[0].replace("-", "_") not in modules:
                    path.unlink()
            home.parent.mkdir(parents=True, exist_ok=True)
            (scratch / "root").rename(home)
    return home


def ensure_build_root(name: str) -> Path:
    """Return a folder that modules of kernel `name` are built in: its headers, and the tools of its suite with their libraries.

    Raises:
        Unavailable: it could not be fetched, or the archive has the kernel's release no more.
    """
    kernel = ensure(name)
    home = cache_dir() / "build-roots" / kernel.release
    with locked(f"build-root-{name}"), _scratch() as scratch:
        if not home.is_dir():
            archive, headers = _updated_archive(RELEASES[name]), f"linux-headers-{kernel.release}"
            needs = archive.depends(headers)
            # The headers also want the kernel itself from 6.12 on, which is here.
            common = [package for package in needs if re.fullmatch(r"linux-headers-.*-common", package)]
            tools = [package for package in needs if re.match(r"linux-kbuild-|linux-compiler-|gcc-\d", package)]
            if not common or not tools:
                raise Unavailable(f"{RELEASES[name]}: no {headers}")
            archive.download([headers, *common], scratch / "debs")
            archive.download_with_needs([*tools, *BUILD_TOOLS], scratch / "debs")
            for deb in (scratch / "debs").glob("*.deb"):
                _unpack(deb, scratch / "root", "*")
            home.parent.mkdir(parents=True, exist_ok=True)
            (scratch / "root").rename(home)
    return home


def unpacked_packages(suite: str, packages: Sequence[str]) -> Path:
    """Return a folder with the newest versions of `packages` unpacked, the first of which names the folder.

    Raises:
        Unavailable: they could not be fetched.
    """
    home = cache_dir() / "tools" / f"{packages[0]}-{suite}"
    with locked(f"tools-{packages[0]}"), _scratch() as scratch:
        if not home.exists():
            _updated_archive(suite).download(list(packages), scratch / "debs")
            for deb in (scratch / "debs").glob("*.deb"):
                _unpack(deb, scratch / "root", "*")
            home.parent.mkdir(parents=True, exist_ok=True)
            (scratch / "root").rename(home)
    return home


@contextlib.contextmanager
def locked(what: str) -> Iterator[None]:
    """Hold the lab's lock called `what`: two test processes must not fetch or boot the same thing."""
    folder = cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / what).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    # Below the cache, so that the finished folder can be renamed into place on the same file system.
    folder = Path(tempfile.mkdtemp(prefix="fetch-", dir=cache_dir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _updated_archive(suite: str) -> Archive:
    archive = Archive(suite, cache_dir() / "apt" / suite)
    archive.update()
    return archive


def _fetch_kernel(suite: str, home: Path) -> None:
    archive = _updated_archive(suite)
    release = _current_release(archive)
    with _scratch() as scratch:
        archive.download(_packages(archive, release), scratch / "debs")
        for deb in (scratch / "debs").glob("*.deb"):
            debug = "-dbg_" in deb.name
            _unpack(deb, scratch / ("debug" if debug else "root"), "*vmlinux*" if debug else "*")
            deb.unlink()
        _arrange(scratch, release)
        home.parent.mkdir(parents=True, exist_ok=True)
        (scratch / "kernel").rename(home)


def _current_release(archive: Archive, meta_package: str = META_PACKAGE) -> str:
    # Old versions vanish from the mirror, so the version is asked for, never remembered.
    for name in archive.depends(meta_package):
        match = re.fullmatch(r"linux-image-(\d.*)", name)
        if match:
            return match.group(1)
    raise Unavailable(f"{archive.suite}: {meta_package} names no kernel")


def _packages(archive: Archive, release: str) -> list[str]:
    image = f"linux-image-{release}"
    # From 7.x on the image package is empty and its contents are two others.
    parts = [name for name in archive.depends(image) if re.match(r"linux-(binary|modules)-", name)]
    return [image, f"{image}-dbg", *parts]


def _unpack(deb: Path, target: Path, *patterns: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    tar = ["tar", "-x", "-C", str(target), "--wildcards", *patterns]
    with subprocess.Popen(["dpkg", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as dpkg:
        status = subprocess.run(tar, stdin=dpkg.stdout, check=False).returncode
    if status or dpkg.returncode:
        raise Unavailable(f"{deb.name}: cannot be unpacked")


def _one(root: Path, pattern: str) -> Path:
    for path in root.rglob(pattern):
        if not path.is_symlink():
            return path
    raise Unavailable(f"no {pattern} in the packages")


def _arrange(scratch: Path, release: str) -> None:
    # Suites lay their packages out differently (/usr merged or not, vmlinux under boot or modules): one layout here.
    kernel = scratch / "kernel"
    (kernel / "modules").mkdir(parents=True)
    _one(scratch / "debug", "vmlinux*").rename(kernel / "vmlinux")
    _one(scratch / "root", "vmlinuz*").rename(kernel / "vmlinuz")
    drivers = [path for path in scratch.glob("root/**/modules") if (path / release / "kernel").is_dir()]
    if not drivers:
        raise Unavailable(f"no modules of {release} in the packages")
    (drivers[0] / release).rename(kernel / "modules" / release)


def _open_kernel(name: str, home: Path) -> Kernel:
    (modules,) = (home / "modules").iterdir()
    return Kernel(name, modules.name, home / "vmlinux", home / "vmlinuz", modules)
