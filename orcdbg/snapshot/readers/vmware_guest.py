"""How is a guest that VMware stopped in its panic, a debug.guest and its debug.vmem, read as a stopped machine?"""

from __future__ import annotations

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.formats.vmware_guest import HEAD_SIZE, MAX_CPUS, GuestHeader, parse_header, read_cpu
from orcdbg.snapshot.extents import Extent
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.readers.vmware import guest_snapshot, memory_beside

_OTHERS = ("orig_rax", "fs_base", "gs_base", "ds", "es", "fs", "gs")


def _extents(header: GuestHeader, memory: ByteSource) -> list[Extent]:
    """Where memory is: the file has none of the holes."""
    found: list[Extent] = []
    frame, page, left = 0, 0, header.pages
    for start, size in (*header.holes, (None, 0)):
        pages = left if start is None else min(max(start - frame, 0), left)
        if pages:
            found.append(Extent(frame * PAGE, memory, page * PAGE, pages * PAGE, pages * PAGE))
        page, left = page + pages, left - pages
        frame = frame if start is None else start + size
    return found


def open_guest(source: ByteSource, given: ByteSource | None = None) -> Snapshot:
    """The snapshot whose CPUs are in a debug.guest; its memory is in a file that is given, or the .vmem of the same name.

    Raises:
        UnsupportedFormat: damaged, or without memory.
    """
    header = parse_header(source.read_at(0, min(source.size, HEAD_SIZE)))
    if header is None:
        raise UnsupportedFormat(source.name, "not a VMware debug.guest")
    saved = given or memory_beside(source)
    extents = _extents(header, saved)

    cpus = []
    for number in Budget(MAX_CPUS).entries(header.cpus, header.first_cpu, "CPUs"):
        cpu = read_cpu(source, header, number)
        registers = {name: value for name, value in cpu.registers.items() if name not in _OTHERS}
        gs_base = cpu.registers["gs_base"]
        cpus.append(CpuState(number, f"VMware cpu {number}", registers, 0, cpu.cr3, cpu.cr4, cpu.idt, gs_base))

    return guest_snapshot(source, "VMware debug.guest", saved, extents, cpus)
