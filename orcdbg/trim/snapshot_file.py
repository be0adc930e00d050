"""How does what was kept of a snapshot become a file?"""

from __future__ import annotations

from typing import IO

from orcdbg.base.errors import UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import Note
from orcdbg.formats.trim_note import NOTE_OWNER, encode_trim_note
from orcdbg.snapshot.machine import Snapshot
from orcdbg.trim.core_writing import write_core
from orcdbg.trim.kept_pages import cut_out, runs_of
from orcdbg.trim.selection import Selection

_ZSTD_LEVEL = 12


def kept_notes(snapshot: Snapshot) -> list[Note]:
    """The notes that a trimmed snapshot takes over.

    Raises:
        UsageError: there are none, so that nothing would tell where the kernel is.
    """
    # What a snapshot that is trimmed already says of its bytes does not hold of ours.
    notes = [note for note in snapshot.notes if note.name != NOTE_OWNER]
    if not notes:
        raise UsageError(f"{snapshot.path}: this kind of snapshot has no ELF notes to take over")
    return notes


def write_trimmed(snapshot: Snapshot, selection: Selection, memory: AddressSpace, out: IO[bytes], zstd: bool) -> int:
    """Writes the trimmed snapshot; the bytes of its file.

    Args:
        snapshot: which is trimmed; its notes are taken over.
        selection: what is kept of it.
        memory: its physical memory; nothing that is not kept is read of it.
        out: an empty file.
        zstd: whether to compress it.

    Raises:
        UsageError: the snapshot has no notes to take over.
    """
    notes = [*kept_notes(snapshot), encode_trim_note(selection.ranges)]
    runs = runs_of(selection.ranges, memory, selection.blank)

    def read(first_page: int, pages: int) -> bytes:
        return cut_out(selection.ranges, memory, first_page * PAGE, pages * PAGE)

    if zstd:
        import zstandard  # only where it is asked for

        with zstandard.ZstdCompressor(level=_ZSTD_LEVEL).stream_writer(out, closefd=False) as packed:
            write_core(packed, notes, runs, read)
    else:
        write_core(out, notes, runs, read)
    return out.tell()
