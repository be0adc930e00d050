"""Copies of the sample's core with chosen changes: notes left out, pages dropped, bytes overwritten."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from orcdbg.base.reading import FileSource
from orcdbg.base.sizes import PAGE
from orcdbg.cli.main import sample_files
from orcdbg.formats.elf import PT_LOAD, ElfFile
from tests.build import elf


def changed_core(
    path: Path,
    notes: Collection[str] = ("CORE", "QEMU", "VMCOREINFO"),
    without: Collection[int] = (),
    patches: Mapping[int, bytes] | None = None,
) -> str:
    """Writes the sample's core with only the named notes, without the pages that hold these physical addresses, and with
    these bytes at physical addresses; the new file's path."""
    file = ElfFile(FileSource(sample_files()[1]))
    dropped = {address // PAGE for address in without}
    loads = []
    for segment in (s for s in file.segments if s.type == PT_LOAD):
        data = bytearray(file.source.read_at(segment.offset, segment.file_size))
        for address, value in (patches or {}).items():
            at = address - segment.physical
            if 0 <= at < len(data):
                data[at : at + len(value)] = value
        loads += _pieces(segment.physical, bytes(data), dropped)
    kept = [note for note in file.notes() if note.name in notes]
    path.write_bytes(elf.core(loads, b"".join(elf.note(n.name, n.type, n.data) for n in kept)))
    return str(path)


def _pieces(physical: int, data: bytes, dropped: Collection[int]) -> list[elf.Load]:
    """A segment without some of its pages."""
    pieces: list[elf.Load] = []
    start = 0
    for at in range(0, len(data) + PAGE, PAGE):
        if at >= len(data) or (physical + at) // PAGE in dropped:
            if at > start:
                pieces.append(elf.Load(physical + start, data[start:at]))
            start = at + PAGE
    return pieces
