"""What does a reader of one snapshot format offer, a built-in one as well as a plug-in's?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.base.reading import ByteSource
from orcdbg.snapshot.machine import Snapshot

# Every magic number of a format stands in its first page.
HEAD_SIZE = 4096


@dataclass(frozen=True, slots=True)
class SnapshotReader:
    """One kind of snapshot file.

    Attributes:
        name: what such a file is, as in `an ELF core`; messages and `orcdbg checkup` say it.
        detect: tells by a file's first bytes, at most `HEAD_SIZE` and fewer of a shorter file, whether it is of this kind.
            They may be anything, and nothing may be raised for them.
        open: makes the stopped machine of a file that `detect` knew; an OrcdbgError where it is damaged.
        open_parts: makes it of several such files, given in any order, where the format splits one snapshot into parts;
            None where every file is a snapshot of its own.
        open_with_memory: makes it of a file and of one that holds plain memory and nothing else, which no `detect` can know;
            None where the format has no such files.
    """

    name: str
    detect: Callable[[bytes], bool]
    open: Callable[[ByteSource], Snapshot]
    open_parts: Callable[[Sequence[ByteSource]], Snapshot] | None = None
    open_with_memory: Callable[[ByteSource, ByteSource], Snapshot] | None = None
