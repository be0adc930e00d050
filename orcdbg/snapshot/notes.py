"""What do the notes of a snapshot, in whatever file they are, say of its CPUs and of its kernel?"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from orcdbg.formats.core_notes import (
    NT_PRSTATUS,
    Prstatus,
    QemuCpuState,
    is_prstatus,
    is_qemu,
    parse_prstatus,
    parse_qemu_state,
)
from orcdbg.formats.elf import Note
from orcdbg.snapshot.machine import CpuState
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo

__all__ = ["NT_PRSTATUS", "VMCOREINFO", "cpu_states", "vmcoreinfo_of", "vmcoreinfo_of_build"]

# The owner of the kernel's note (VMCOREINFO_NOTE_NAME, include/linux/vmcore_info.h; until 6.8 in crash_core.h).
VMCOREINFO = "VMCOREINFO"


def cpu_states(notes: Sequence[Note]) -> list[CpuState]:
    """The CPUs whose registers the notes hold, in the order of the notes.

    Args:
        notes: all notes of the snapshot, in the order of the file.

    Raises:
        UnsupportedFormat: a note is too short for what it is called.
    """
    statuses = [parse_prstatus(note.data) for note in notes if is_prstatus(note)]
    of_qemu = [parse_qemu_state(note.data) for note in notes if is_qemu(note)]

    states = []
    for cpu, (status, more) in enumerate(zip(statuses, _paired(statuses, of_qemu), strict=True)):
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


def _paired(statuses: Sequence[Prstatus], of_qemu: Sequence[QemuCpuState]) -> Iterator[QemuCpuState | None]:
    """For the notes of CPUs' registers in their order, what QEMU's own note of the same CPU says; None without one.

    Neither kind names its CPU, but both have its ip and stack pointer. QEMU writes them in one order; a file that was cut or
    put together otherwise has not.
    """
    of_place = defaultdict[tuple[int, int], deque[QemuCpuState]](deque)
    for state in of_qemu:
        of_place[state.ip, state.sp].append(state)
    for status in statuses:
        states = of_place[status.registers["rip"], status.registers["rsp"]]
        yield states.popleft() if states else None


def vmcoreinfo_of_build(notes: Sequence[Note], build_id: str) -> dict[str, str] | None:
    """The lines of the first VMCOREINFO that is of a build; None where none is, or says.

    A dump may have several: the one of a kernel that ran before, or of the kernel that wrote the dump, stands first in some.
    """
    for note in notes:
        if note.name == VMCOREINFO:
            found = parse_vmcoreinfo(note.data)
            if found.get("BUILD-ID", "").strip().lower() == build_id:
                return found
    return None


def vmcoreinfo_of(notes: Sequence[Note]) -> dict[str, str]:
    """The lines of the first VMCOREINFO among the notes, by their keys; empty where there is none."""
    for note in notes:
        if note.name == VMCOREINFO:
            return parse_vmcoreinfo(note.data)
    return {}
