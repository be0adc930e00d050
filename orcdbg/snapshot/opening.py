"""How do files that a user names become a stopped machine?

The kind of a file is told by its content, which its reader knows (`snapshot/readers/`). Before a reader sees the file, what it
was wrapped in is taken off: a pipe, the blocks of a flattened stream, compression. A name tells two things only: a plain image
of memory has its address there (`readers/raw.py`), and the memory of the running kernel is read only where `/proc/kcore` itself
is named, never through a link.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat, UsageError
from orcdbg.base.reading import ByteSource, FileSource
from orcdbg.formats import codecs, flattened
from orcdbg.formats.flattened import FlattenedSource
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.readers import raw
from orcdbg.snapshot.readers.elf_core import refuse_link_to_live_memory
from orcdbg.snapshot.readers.reader import HEAD_SIZE, SnapshotReader
from orcdbg.snapshot.readers.registry import READERS
from orcdbg.snapshot.spool import is_stream, spooled


class SnapshotFile(NamedTuple):
    """A file that holds a snapshot or a part of one.

    Attributes:
        source: its contents, with nothing around them any more.
        reader: whose format they are.
        kind: what the file is, in words.
    """

    source: ByteSource
    reader: SnapshotReader
    kind: str


def recognise(name: str, more_readers: Sequence[SnapshotReader] = ()) -> SnapshotFile | None:
    """The file of that name, if a reader knows it; None if it is something else, such as a vmlinux.

    Args:
        name: a path, `-` for standard input, or FILE@ADDRESS. A pipe can be read only this once.
        more_readers: readers of plug-ins, asked before the built-in ones.

    Raises:
        UnsupportedFormat: it cannot be read.
    """
    image = raw.find_placed_image(name)
    if image is not None:
        return SnapshotFile(image, raw.READER, raw.READER.name)

    refuse_link_to_live_memory(name)

    file: FileSource = spooled(name) if is_stream(name) else FileSource(name)
    if not file.is_regular:
        raise UnsupportedFormat(name, "not a regular file")

    readers = (*more_readers, *READERS)
    head = file.read_at(0, min(file.size, HEAD_SIZE))

    # The file as it is comes first, so that a plug-in may read what unpacks in a way of its own.
    reader = _reader_of(head, readers)
    if reader is not None:
        return SnapshotFile(file, reader, reader.name)

    if head.startswith(flattened.MAGIC):
        return _in_flattened(file, readers)
    if codecs.is_compressed(head):
        return _in_compressed(file, readers)
    return None


def looks_like_snapshot(name: str) -> bool:
    """Whether the file of that name begins as a snapshot does; nothing is unpacked as a whole for that.

    Raises:
        UnsupportedFormat: it cannot be read.
    """
    file = FileSource(name)
    if not file.is_regular:
        return False
    head = file.read_at(0, min(file.size, HEAD_SIZE))
    if head.startswith(flattened.MAGIC):
        return True
    if codecs.is_compressed(head):
        head = codecs.unpacked_head(file, HEAD_SIZE)
    return _reader_of(head, READERS) is not None


def _reader_of(head: bytes, readers: Sequence[SnapshotReader]) -> SnapshotReader | None:
    """The first reader that knows a file by its first bytes."""
    return next((reader for reader in readers if reader.detect(head)), None)


def _in_flattened(file: ByteSource, readers: Sequence[SnapshotReader]) -> SnapshotFile | None:
    """What a stream of makedumpfile or QEMU holds in its blocks."""
    inner = FlattenedSource(file)
    reader = _reader_of(inner.read_at(0, min(inner.size, HEAD_SIZE)), readers)
    return None if reader is None else SnapshotFile(inner, reader, reader.name)


def _in_compressed(file: ByteSource, readers: Sequence[SnapshotReader]) -> SnapshotFile | None:
    """What a compressed file holds: it is unpacked as a whole only where its first bytes are a snapshot's."""
    reader = _reader_of(codecs.unpacked_head(file, HEAD_SIZE), readers)
    if reader is None:
        return None

    article, _, kind = reader.name.partition(" ")
    name = f"a compressed {kind}" if article in ("a", "an") else f"{reader.name}, compressed"
    return SnapshotFile(codecs.decompressed(file), reader, name)


def with_plain_memory(files: Sequence[SnapshotFile], unknown: Sequence[str]) -> SnapshotFile | None:
    """A snapshot whose memory is in a file that only its place beside the snapshot tells.

    Args:
        files: that were recognised.
        unknown: names of those that were not.

    Returns:
        None where there is no such snapshot, or not one such file.
    """
    open_with = files[0].reader.open_with_memory if len(files) == 1 else None
    if open_with is None or len(unknown) != 1 or is_stream(unknown[0]):
        return None
    memory = FileSource(unknown[0])
    return files[0]._replace(reader=replace(files[0].reader, open=lambda source: open_with(source, memory)))


def open_snapshot(files: Sequence[SnapshotFile]) -> Snapshot:
    """The snapshot in these files; several are taken only where they are parts of one.

    Raises:
        UnsupportedFormat: damaged.
        UsageError: several snapshots.
    """
    first = files[0]
    if len(files) == 1:
        return first.reader.open(first.source)

    of_one_kind = all(file.reader is first.reader for file in files)
    if of_one_kind and first.reader.open_parts is not None:
        return first.reader.open_parts([file.source for file in files])

    raise UsageError(f"{len(files)} snapshots: one is needed, or all parts of a split kdump, or of a raw memory image")


def open_paths(*names: str) -> Snapshot:
    """The snapshot in the files of these names, as `recognise` takes them.

    Raises:
        UnsupportedFormat: one of them is no snapshot.
        UsageError: they are not one snapshot.
    """
    files = []
    for name in names:
        file = recognise(name)
        if file is None:
            raise UnsupportedFormat(name, "not a snapshot of any known format")
        files.append(file)
    return open_snapshot(files)
