"""Which reader makes a stopped machine of these files?"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.base.reading import ByteSource, FileSource
from orcdbg.formats.detect import FileKind, file_kind
from orcdbg.formats.flattened import FlattenedSource
from orcdbg.snapshot.elfcore import open_elf_core
from orcdbg.snapshot.kdump import open_kdump
from orcdbg.snapshot.machine import Snapshot

SNAPSHOT_KINDS = {FileKind.ELF_CORE, FileKind.KDUMP, FileKind.FLATTENED}


def _unwrapped(path: str) -> tuple[ByteSource, FileKind]:
    """The file's contents with flattening undone, and what they are."""
    source: ByteSource = FileSource(path)
    kind = file_kind(source)
    if kind is FileKind.FLATTENED:
        source = FlattenedSource(source)
        kind = file_kind(source)
    return source, kind


def open_snapshot(paths: Sequence[str]) -> Snapshot:
    """The snapshot in these files; several only where they are parts of one.

    Raises:
        UnsupportedFormat: damaged, of an unknown kind, or not parts of one snapshot.
    """
    opened = [_unwrapped(path) for path in paths]
    kinds = {kind for _, kind in opened}
    sources = [source for source, _ in opened]
    if kinds == {FileKind.KDUMP}:
        return open_kdump(sources)
    if kinds != {FileKind.ELF_CORE}:
        what = ", ".join(kind.value for kind in kinds)
        raise UnsupportedFormat(paths[0], f"no snapshot that can be read: {what}")
    if len(sources) > 1:
        raise UsageError(f"{len(sources)} snapshots: one is needed, or all parts of a split kdump")
    return open_elf_core(sources[0])
