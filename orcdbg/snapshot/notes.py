"""What do the notes of a snapshot, in whatever file they are, say of its CPUs and of its kernel?"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.formats.elf import Note
from orcdbg.snapshot.machine import CpuState
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo

VMCOREINFO = "VMCOREINFO"
NT_PRSTATUS = 1
_PRSTATUS_SIZE, _PR_PID, _PR_REG = 336, 32, 112
# Order of pr_reg, struct user_regs_struct in arch/x86/include/asm/user_64.h.
_PR_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_QEMU_SIZE, _QEMU_SEGMENT, _QEMU_IDT, _QEMU_GS, _QEMU_CR = 440, 152, 9, 4, 392


def _qemu_state(note: Note) -> dict[str, int]:
    """CR3, CR4, IDT base and active GS base from one of QEMU's own notes (QEMUCPUState in its arch_dump.c)."""
    if len(note.data) < _QEMU_SIZE:
        raise UnsupportedFormat("QEMU note", f"{len(note.data)} bytes, {_QEMU_SIZE} expected")

    def base(index: int) -> int:
        return int.from_bytes(note.data[_QEMU_SEGMENT + 24 * index + 16 :][:8], "little")

    cr = struct.unpack_from("<5Q", note.data, _QEMU_CR)
    return {"cr3": cr[3], "cr4": cr[4], "idt": base(_QEMU_IDT), "gs_base": base(_QEMU_GS)}


def _cpu_state(cpu: int, note: Note, qemu: Note | None) -> CpuState:
    if len(note.data) < _PRSTATUS_SIZE:
        raise UnsupportedFormat("NT_PRSTATUS note", f"{len(note.data)} bytes, {_PRSTATUS_SIZE} expected")
    pid = int.from_bytes(note.data[_PR_PID : _PR_PID + 4], "little")
    values = dict(zip(_PR_NAMES, struct.unpack_from("<27Q", note.data, _PR_REG), strict=True))
    state = _qemu_state(qemu) if qemu else {}
    return CpuState(cpu, f"NT_PRSTATUS cpu {cpu}", values, pid, **state)


def is_qemu(note: Note) -> bool:
    """True for a note that QEMU added for itself, one a CPU."""
    return note.name == "QEMU" and note.type == 0


def cpu_states(notes: Sequence[Note]) -> list[CpuState]:
    """The CPUs whose registers the notes hold, in the order of the notes.

    Raises:
        UnsupportedFormat: a note is too short for what it is called.
    """
    statuses = [note for note in notes if note.name == "CORE" and note.type == NT_PRSTATUS]
    qemu = [note for note in notes if is_qemu(note)]
    return [
        _cpu_state(cpu, note, qemu[cpu] if len(qemu) == len(statuses) else None) for cpu, note in enumerate(statuses)
    ]


def vmcoreinfo_of(notes: Sequence[Note]) -> dict[str, str]:
    """The VMCOREINFO among the notes; empty without."""
    return next((parse_vmcoreinfo(note.data) for note in notes if note.name == VMCOREINFO), {})
