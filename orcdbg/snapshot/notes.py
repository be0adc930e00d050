"""What do the notes of a snapshot, in whatever file they are, say of its CPUs and of its kernel?"""

from __future__ import annotations

from collections.abc import Sequence

from orcdbg.formats.core_notes import (
    NT_PRSTATUS,
    QemuCpuState,
    is_prstatus,
    is_qemu,
    parse_prstatus,
    parse_qemu_state,
)
from orcdbg.formats.elf import Note
from orcdbg.snapshot.machine import CpuState
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo

__all__ = ["NT_PRSTATUS", "VMCOREINFO", "cpu_states", "vmcoreinfo_of"]

# The owner of the kernel's note (VMCOREINFO_NOTE_NAME, include/linux/vmcore_info.h; until 6.8 in crash_core.h).
VMCOREINFO = "VMCOREINFO"


def cpu_states(notes: Sequence[Note]) -> list[CpuState]:
    """The CPUs whose registers the notes hold, in the order of the notes.

    Args:
        notes: all notes of the snapshot, in the order of the file.

    Raises:
        UnsupportedFormat: a note is too short for what it is called.
    """
    statuses = [note for note in notes if is_prstatus(note)]
    of_qemu = [note for note in notes if is_qemu(note)]

    # The notes of one CPU do not name it: only where each has both do the n-th of either kind belong together.
    are_paired = len(of_qemu) == len(statuses)

    states = []
    for cpu, note in enumerate(statuses):
        status = parse_prstatus(note.data)
        more: QemuCpuState | None = parse_qemu_state(of_qemu[cpu].data) if are_paired else None
        states.append(
            CpuState(
                cpu=cpu,
                source=f"NT_PRSTATUS cpu {cpu}",
                registers=status.registers,
                pid=status.pid,
                cr3=None if more is None else more.cr3,
                cr4=None if more is None else more.cr4,
                idt=None if more is None else more.idt,
                gs_base=None if more is None else more.gs_base,
                kernel_gs_base=None if more is None else more.kernel_gs_base,
            )
        )
    return states


def vmcoreinfo_of(notes: Sequence[Note]) -> dict[str, str]:
    """The lines of the first VMCOREINFO among the notes, by their keys; empty where there is none."""
    for note in notes:
        if note.name == VMCOREINFO:
            return parse_vmcoreinfo(note.data)
    return {}
