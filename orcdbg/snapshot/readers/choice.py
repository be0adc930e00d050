"""Which reader makes a stopped machine of these files?

The kind is told by content. Two things are told by name: `FILE@ADDRESS` is a plain image of memory that starts at that
physical address, for it has no content to tell it by; and the memory of the running kernel is read only where
`/proc/kcore` itself is named, never through a link.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.base.reading import ByteSource, FileSource
from orcdbg.formats import codecs
from orcdbg.formats.detect import FileKind, file_kind
from orcdbg.formats.flattened import FlattenedSource
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers.elfcore import open_elf_core
from orcdbg.snapshot.readers.kdump import open_kdump
from orcdbg.snapshot.readers.raw import open_lime, open_raw
from orcdbg.snapshot.readers.vmware import open_vmware
from orcdbg.snapshot.spool import is_stream, spooled

KCORE = "/proc/kcore"
_PLACED = re.compile(r"(.+)@(0[xX][0-9a-fA-F]{1,16}|\d{1,20})")


class SnapshotFile(NamedTuple):
    """A file that holds a snapshot or a part of one; `physical` is where a plain image of memory starts."""

    source: ByteSource
    kind: FileKind
    physical: int | None = None


def _placed(name: str) -> SnapshotFile | None:
    """A plain image that was given as FILE@ADDRESS; a file that has such a name is itself."""
    match = _PLACED.fullmatch(name)
    if match is None or os.path.lexists(name):
        return None
    return SnapshotFile(FileSource(match[1]), FileKind.UNKNOWN, int(match[2], 0))


def recognise(name: str) -> SnapshotFile | None:
    """The file of that name if it is, by its content, one that `open_snapshot` takes; None if it is something else.

    Raises:
        UnsupportedFormat: it cannot be read.
    """
    placed = _placed(name)
    if placed is not None:
        return placed
    if os.path.realpath(name) == KCORE and name != KCORE:
        raise UnsupportedFormat(name, "a link to the running kernel's memory", f"name it itself: {KCORE}")
    file: FileSource = spooled(name) if is_stream(name) else FileSource(name)
    if not file.is_regular:
        raise UnsupportedFormat(name, "not a regular file")
    source, kind = _unwrapped(file)
    return SnapshotFile(source, kind) if kind in _OPENERS else None


def _unwrapped(file: ByteSource) -> tuple[ByteSource, FileKind]:
    """The contents with flattening or compression undone, and what they are."""
    kind = file_kind(file)
    if kind is FileKind.COMPRESSED_CORE:
        return codecs.decompressed(file), FileKind.ELF_CORE
    if kind is not FileKind.FLATTENED:
        return file, kind
    inner = FlattenedSource(file)
    return inner, file_kind(inner)


def _open_one_kdump(source: ByteSource) -> Snapshot:
    return open_kdump([source])


def _open_core(source: ByteSource) -> Snapshot:
    return open_elf_core(source, is_live=source.name == KCORE)


_OPENERS: dict[FileKind, Callable[[ByteSource], Snapshot]] = {
    FileKind.ELF_CORE: _open_core,
    FileKind.LIME: open_lime,
    FileKind.VMWARE: open_vmware,
    FileKind.KDUMP: _open_one_kdump,
}


def open_paths(*names: str) -> Snapshot:
    """The snapshot in the files of these names.

    Raises:
        UnsupportedFormat: one of them is no snapshot.
        UsageError: they are not one snapshot.
    """
    files = [recognise(name) for name in names]
    for name, file in zip(names, files, strict=True):
        if file is None:
            raise UnsupportedFormat(name, "not a snapshot of any known format")
    return open_snapshot([file for file in files if file is not None])


def open_snapshot(files: Sequence[SnapshotFile]) -> Snapshot:
    """The snapshot in these files; several are taken only where they are parts of one.

    Raises:
        UnsupportedFormat: damaged.
        UsageError: several snapshots.
    """
    images = [(one.source, one.physical) for one in files if one.physical is not None]
    if len(images) == len(files):
        return open_raw(images)
    if len(files) == 1:
        return _OPENERS[files[0].kind](files[0].source)
    if {one.kind for one in files} == {FileKind.KDUMP}:
        return open_kdump([one.source for one in files])
    raise UsageError(f"{len(files)} snapshots: one is needed, or all parts of a split kdump, or of a raw memory image")
