"""Which BTF does a file hold that somebody has beside a kernel: detached, split off, or packed by release?

BTFHub keeps a distribution's kernels in folders, one archive for each release: `5.4.0-42-generic.btf.tar.xz`. A file is told
by its content; only in a folder, and in an archive of several, does a name tell which release it is of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from orcdbg.base.errors import NotFound, UnsupportedFormat, UsageError
from orcdbg.base.folders import is_folder
from orcdbg.base.reading import ByteSource, FileSource
from orcdbg.formats import codecs, elf
from orcdbg.formats.tar import is_tar, tar_entries
from orcdbg.image.vmlinux import MAX_TABLE
from orcdbg.symbols.btf import MAGIC, SECTION, Btf

_RAW = MAGIC.to_bytes(2, "little")
_HEAD = 512

# BTFHub's folders are distribution, version, machine; all of them have some ten thousand files.
MAX_FILES = 1 << 16
MAX_DEPTH = 4
# Machines that orcdbg has no kernels of, as BTFHub names their folders.
_OTHER_MACHINES = {"arm64", "aarch64"}
_ENDINGS = (".btf", ".btf.tar.xz", ".btf.tar.gz", ".btf.tar.zst", ".btf.xz", ".btf.gz", ".btf.zst")


def read_btf_file(path: str, release: str | None) -> Btf:
    """The BTF in a file, or in the file of a folder that has the kernel's release for its name.

    Args:
        path: the file, or a folder of them.
        release: what `uname -r` said, as far as the kernel's files tell; untrusted.

    Raises:
        UsageError: a folder, and nobody knows the release, or several files have it.
        NotFound: a folder or an archive in which no file is of that release.
        UnsupportedFormat: it cannot be read, or holds no BTF.
    """
    if is_folder(path):
        path = _in_folder(path, release)
    file = FileSource(path)
    if not file.is_regular:
        raise UnsupportedFormat(path, "not a regular file")
    btf = Btf(_section(file, release), path, is_built=False)
    btf.check_whole()
    return btf


def _section(file: ByteSource, release: str | None) -> bytes:
    """The BTF in a file, whatever is around it."""
    head = file.read_at(0, min(file.size, _HEAD))
    if codecs.is_compressed(head):
        file = codecs.decompressed(file)
        head = file.read_at(0, min(file.size, _HEAD))
    if is_tar(head):
        file = _in_archive(file, release)
        head = file.read_at(0, min(file.size, _HEAD))

    if head.startswith(_RAW):
        if file.size > MAX_TABLE:
            raise UnsupportedFormat(file.name, f"{file.size} bytes of BTF")
        return file.read_at(0, file.size)
    if not head.startswith(elf.MAGIC):
        raise UnsupportedFormat(file.name, "neither BTF nor an ELF file with BTF")

    whole = elf.ElfFile(file)
    section = whole.by_name.get(SECTION)
    if section is None or section.type == elf.SHT_NOBITS or not section.size:
        raise UnsupportedFormat(file.name, f"an ELF file without BTF ({SECTION})")
    if section.size > MAX_TABLE:
        raise UnsupportedFormat(file.name, f"section {SECTION} of {section.size} bytes")
    return whole.data(section)


def _in_archive(file: ByteSource, release: str | None) -> ByteSource:
    """The one file of an archive, or of several the one of the release."""
    entries = list(tar_entries(file))
    if release is not None:
        entries = [entry for entry in entries if entry.name in _names(release)] or entries
    if len(entries) == 1:
        return entries[0].contents
    if not entries:
        raise UnsupportedFormat(file.name, "an archive without a file")
    raise NotFound("release in the archive", release or "(not known)", f"{file.name} has {len(entries)} files")


def _names(release: str) -> set[str]:
    return {release + ending for ending in _ENDINGS}


def _in_folder(path: str, release: str | None) -> str:
    """The file of a folder that is named after the release."""
    if release is None:
        raise UsageError(f"{path}: a folder, and nothing tells the kernel's release", "name the file of this kernel")
    # A release is compared with the names that are there, never made into a path.
    wanted = _names(release)
    hits = sorted(file for file in _files_below(path) if os.path.basename(file) in wanted)  # noqa: PTH119
    if not hits:
        raise NotFound("BTF of the release", release, f"{path} has no {release}.btf or {release}.btf.tar.xz")
    if len(hits) > 1:
        raise UsageError(f"{len(hits)} files below {path} are of release {release}", f"name one: {hits[0]}")
    return hits[0]


def _files_below(path: str) -> Iterator[str]:
    """The files below a folder, as far down as BTFHub has them; links to folders are not followed."""
    folders = [(path, 0)]
    count = 0
    while folders:
        folder, depth = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    if count > MAX_FILES:
                        raise UsageError(f"{path}: more than {MAX_FILES} files", "name the file of this kernel")
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry.path
                    elif depth < MAX_DEPTH and entry.name not in _OTHER_MACHINES:
                        folders.append((entry.path, depth + 1))
        except OSError as error:
            raise UnsupportedFormat(folder, f"cannot be read: {error.strerror}") from error
