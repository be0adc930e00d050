"""How is an ELF core, as QEMU's dump-guest-memory and kdump write it, read as a stopped machine?

Only physical addresses are believed: QEMU without paging writes p_vaddr = p_paddr, which is no virtual mapping at all
(a NULL pointer would read the BIOS vector table).
"""

from __future__ import annotations

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats.elf import PT_LOAD, ElfFile
from orcdbg.snapshot.extents import Extent, ExtentMemory, cut_off_warnings
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.notes import cpu_states, is_qemu, vmcoreinfo_of
from orcdbg.snapshot.readers.kept import KeptMemory, is_list_of_kept, parse_kept

# What /proc/kcore gives as the physical address of memory that is mapped elsewhere, such as vmalloc's.
_NOWHERE = (1 << 64) - 1
LIVE_WARNING = "this is the memory of the running kernel: it changes while it is read, and no CPU's registers are known"


def open_elf_core(source: ByteSource, is_live: bool = False) -> Snapshot:
    """The snapshot in an ELF core; `is_live` where it is /proc/kcore, whose notes hold no CPU's registers.

    Raises:
        UnsupportedFormat: its headers or notes are damaged or cut off, or it holds no memory.
    """
    elf = ElfFile(source)
    loads = [one for one in elf.segments if one.type == PT_LOAD and one.physical != _NOWHERE]
    extents = [Extent(one.physical, source, one.offset, one.file_size, one.memory_size) for one in loads]
    if not any(one.size for one in extents):
        raise UnsupportedFormat(source.name, "an ELF core without memory (no PT_LOAD)")
    held, notes = ExtentMemory(extents), list(elf.notes())
    by_whom = "QEMU" if any(map(is_qemu, notes)) else "kdump"
    memory: ExtentMemory | KeptMemory = held
    kept = next((note for note in notes if is_list_of_kept(note)), None)
    if kept is not None:
        by_whom += ", trimmed"
        memory = KeptMemory(held, parse_kept(kept, source.name))
    return Snapshot(
        source.name,
        "live memory" if is_live else f"ELF core ({by_whom})",
        memory,
        [] if is_live else cpu_states(notes),
        vmcoreinfo_of(notes),
        [LIVE_WARNING] if is_live else cut_off_warnings(source, extents),
        memory.ranges,
        notes,
        memory.left_out,
    )
