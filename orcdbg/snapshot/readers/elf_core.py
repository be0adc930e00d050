"""How is an ELF core, as QEMU's dump-guest-memory, kdump, `orcdbg trim` and /proc/kcore write it, read as a stopped machine?

Only physical addresses are believed: QEMU without paging writes p_vaddr = p_paddr (dump/dump.c, write_elf64_load), which is no
virtual mapping at all, and by which a NULL pointer would read the BIOS vector table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.intervals import Pieces
from orcdbg.base.reading import ByteSource
from orcdbg.base.sizes import U64
from orcdbg.formats.core_notes import is_qemu
from orcdbg.formats.elf import PT_LOAD, PT_NOTE, ElfFile, Note, Segment, is_core
from orcdbg.formats.trim_note import is_trim_note, parse_trim_note
from orcdbg.snapshot.extents import Extent, ExtentMemory, cut_off_warnings
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.notes import cpu_states, vmcoreinfo_of
from orcdbg.snapshot.readers.reader import SnapshotReader
from orcdbg.snapshot.trimmed_memory import TrimmedMemory

# The memory of the running kernel, an ELF core that the kernel makes while it is read (fs/proc/kcore.c).
KCORE = "/proc/kcore"
# The physical address that it gives to memory which is mapped elsewhere, such as vmalloc's.
_NOWHERE = U64
LIVE_WARNING = "this is the memory of the running kernel: it changes while it is read, and no CPU's registers are known"


# Owners of notes, and whose they are (VirtualBox's DBGFCoreWrite.cpp; Xen's xen/include/public/elfnote.h).
XEN_OWNER = "Xen"
_WRITERS = (("VBCORE", "VirtualBox"), ("VBCPU", "VirtualBox"), (XEN_OWNER, "Xen"))


def refuse_link_to_live_memory(name: str) -> None:
    """Raises UnsupportedFormat for a name that leads to the running kernel's memory and does not say so.

    Who opens a file that somebody sent does not want to read the own machine instead.
    """
    if os.path.realpath(name) == KCORE and name != KCORE:
        raise UnsupportedFormat(name, "a link to the running kernel's memory", f"name it itself: {KCORE}")


def open_elf_core(source: ByteSource, is_live: bool = False) -> Snapshot:
    """The snapshot in an ELF core.

    Args:
        source: the file.
        is_live: whether it is /proc/kcore, whose NT_PRSTATUS is of no CPU.

    Raises:
        UnsupportedFormat: its headers or notes are damaged or cut off, or it holds no memory.
    """
    elf = ElfFile(source)
    loads = [segment for segment in elf.segments if segment.type == PT_LOAD and segment.physical != _NOWHERE]
    extents = [Extent(load.physical, source, load.offset, load.file_size, load.memory_size) for load in loads]
    notes = list(elf.notes())
    if not any(extent.size for extent in extents):
        raise _without_memory(elf, notes)
    _refuse_headers_as_memory(elf, loads)
    trim_note = next(filter(is_trim_note, notes), None)

    memory: ExtentMemory | TrimmedMemory = ExtentMemory(extents)
    if trim_note is not None:
        memory = TrimmedMemory(memory, parse_trim_note(trim_note, source.name))

    return Snapshot(
        path=source.name,
        format="live memory" if is_live else f"ELF core ({_who_wrote(notes)})",
        physical=memory,
        cpus=[] if is_live else cpu_states(notes),
        vmcoreinfo=vmcoreinfo_of(notes),
        warnings=[LIVE_WARNING] if is_live else cut_off_warnings(source, extents),
        ranges=memory.ranges,
        notes=notes,
        left_out=memory.left_out,
        is_trimmed=trim_note is not None,
        is_live=is_live,
    )


def _without_memory(elf: ElfFile, notes: Sequence[Note]) -> UnsupportedFormat:
    """Why no segment of a core holds physical memory."""
    name = elf.source.name
    if any(note.name == XEN_OWNER for note in notes):
        hint = "a dump of the kernel itself is read here: kdump in the guest, or `crash` for this file"
        return UnsupportedFormat(name, "a core of a Xen guest (xl dump-core), whose memory is in sections", hint)
    if any(segment.type == PT_LOAD and segment.physical == _NOWHERE for segment in elf.segments):
        what = "an ELF core of virtual memory alone: no segment says a physical address (p_paddr is -1)"
        return UnsupportedFormat(name, what, "page tables lead to physical memory, of which there is none in this file")
    return UnsupportedFormat(name, "an ELF core without memory (no PT_LOAD)")


def _refuse_headers_as_memory(elf: ElfFile, loads: Sequence[Segment]) -> None:
    """Raises UnsupportedFormat where a segment of memory lies over the program headers or the notes.

    No writer of cores does that. A changed p_offset does, and makes bytes that describe the dump look like the machine's.
    """
    notes = [(each.offset, each.offset + each.file_size) for each in elf.segments if each.type == PT_NOTE]
    areas = [*elf.header_areas, *notes]

    # Memory comes behind all of them in every good file: a million segments are passed by one comparison each.
    last_end = max(end for _, end in areas)
    doubtful = [load for load in loads if load.file_size and load.offset < last_end]

    header_areas = Pieces(areas if doubtful else [])
    for load in doubtful:
        following = header_areas.next_start(load.offset)
        is_over_next = following is not None and following < load.offset + load.file_size
        if is_over_next or header_areas.find(load.offset) is not None:
            what = f"an ELF core whose segment at offset {load.offset:#x} lies over its own headers or notes"
            raise UnsupportedFormat(elf.source.name, what)


def _who_wrote(notes: Sequence[Note]) -> str:
    """Whose dump it is, and whether it was cut down since."""
    owners = {note.name for note in notes}
    known = (writer for owner, writer in _WRITERS if owner in owners)
    writer = "QEMU" if any(map(is_qemu, notes)) else next(known, "kdump")
    return f"{writer}, trimmed" if any(map(is_trim_note, notes)) else writer


def open_named(source: ByteSource) -> Snapshot:
    """The same, where the file's name tells whether it is the running kernel's memory."""
    return open_elf_core(source, is_live=source.name == KCORE)


READER = SnapshotReader("an ELF core", is_core, open_named)
