"""How is an ELF core, as QEMU's dump-guest-memory and kdump write it, read as a stopped machine?

Only physical addresses are believed: QEMU without paging writes p_vaddr = p_paddr, which is no virtual mapping at all
(a NULL pointer would read the BIOS vector table).
"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats.elf import PT_LOAD, ElfFile
from orcdbg.snapshot.extents import Extent, ExtentMemory
from orcdbg.snapshot.machine import Snapshot
from orcdbg.snapshot.notes import cpu_states, is_qemu, vmcoreinfo_of


def _cut_off(source: ByteSource, extents: Sequence[Extent]) -> list[str]:
    """A warning where the file ends before its memory does."""
    lost = sum(one.size - one.held for one in extents)
    if not lost:
        return []
    return [f"{source.name}: the file is cut off: {lost} bytes of memory that its headers name are not in it"]


def open_elf_core(source: ByteSource) -> Snapshot:
    """The snapshot in an ELF core.

    Raises:
        UnsupportedFormat: its headers or notes are damaged or cut off, or it holds no memory.
    """
    elf = ElfFile(source)
    loads = [segment for segment in elf.segments if segment.type == PT_LOAD]
    extents = [Extent(one.physical, source, one.offset, one.file_size, one.memory_size) for one in loads]
    if not any(one.size for one in extents):
        raise UnsupportedFormat(source.name, "an ELF core without memory (no PT_LOAD)")
    memory, notes = ExtentMemory(extents), list(elf.notes())
    by_whom = "QEMU" if any(map(is_qemu, notes)) else "kdump"
    return Snapshot(
        source.name,
        f"ELF core ({by_whom})",
        memory,
        cpu_states(notes),
        vmcoreinfo_of(notes),
        _cut_off(source, extents),
        memory.ranges,
    )
