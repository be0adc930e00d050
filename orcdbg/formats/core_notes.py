"""What do the notes say that a core has for each CPU: the kernel's NT_PRSTATUS, and QEMU's own?

Mirrors struct elf_prstatus (include/linux/elfcore.h) with struct user_regs_struct (arch/x86/include/asm/user_64.h), and
QEMUCPUState of QEMU (target/i386/arch_dump.c).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.formats.elf import Note

CORE_OWNER = "CORE"
NT_PRSTATUS = 1

_QEMU_OWNER = "QEMU"
_QEMU_TYPE = 0

# struct elf_prstatus: its size, and where pr_pid and pr_reg are in it.
_PRSTATUS_SIZE = 336
_PR_PID = struct.Struct("<I")
_PR_PID_OFFSET = 32
_PR_REG = struct.Struct("<27Q")
_PR_REG_OFFSET = 112

# The members of struct user_regs_struct in their order, spelt as gdb spells them.
PR_REG_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)

# QEMUCPUState: its size (until QEMU 3.0 without kernel_gs_base), rsp and rip, its ten QEMUCPUSegments (selector, limit, flags,
# padding, base), cr[5], and kernel_gs_base.
_QEMU_SIZE, _QEMU_OLD_SIZE = 440, 432
_QEMU_REGISTER = struct.Struct("<Q")
_QEMU_SP_OFFSET, _QEMU_IP_OFFSET = 56, 136
_QEMU_SEGMENT = struct.Struct("<4IQ")
_QEMU_SEGMENTS_OFFSET = 152
_QEMU_GS_NUMBER = 4
_QEMU_IDT_NUMBER = 9
_QEMU_CR = struct.Struct("<5Q")
_QEMU_CR_OFFSET = 392
_QEMU_KERNEL_GS = struct.Struct("<Q")
_QEMU_KERNEL_GS_OFFSET = 432


class Prstatus(NamedTuple):
    """What an NT_PRSTATUS says.

    Attributes:
        pid: a task's pid in a kdump, the CPU's number + 1 from QEMU.
        registers: the values of `PR_REG_NAMES`, by those names.
    """

    pid: int
    registers: dict[str, int]


class QemuCpuState(NamedTuple):
    """What QEMU's own note says beyond the registers of NT_PRSTATUS; all are 64-bit numbers.

    Attributes:
        ip, sp: as in the NT_PRSTATUS of the same CPU.
        cr3: physical address of the top page table, with its low bits as in the CPU.
        cr4: the control register.
        idt: virtual address of the interrupt descriptor table.
        gs_base: of the GS that was active.
        kernel_gs_base: of the one that `swapgs` exchanges it for; None from an old QEMU.
    """

    ip: int
    sp: int
    cr3: int
    cr4: int
    idt: int
    gs_base: int
    kernel_gs_base: int | None


def is_prstatus(note: Note) -> bool:
    """True for a note with the registers of one CPU."""
    return note.name == CORE_OWNER and note.type == NT_PRSTATUS


def is_qemu(note: Note) -> bool:
    """True for a note that QEMU added for itself, one a CPU."""
    return note.name == _QEMU_OWNER and note.type == _QEMU_TYPE


def parse_prstatus(data: bytes) -> Prstatus:
    """The contents of an NT_PRSTATUS.

    Raises:
        UnsupportedFormat: too short.
    """
    if len(data) < _PRSTATUS_SIZE:
        raise UnsupportedFormat("NT_PRSTATUS note", f"{len(data)} bytes, {_PRSTATUS_SIZE} expected")

    (pid,) = _PR_PID.unpack_from(data, _PR_PID_OFFSET)
    values = _PR_REG.unpack_from(data, _PR_REG_OFFSET)
    return Prstatus(pid, dict(zip(PR_REG_NAMES, values, strict=True)))


def parse_qemu_state(data: bytes) -> QemuCpuState:
    """The contents of QEMU's own note.

    Raises:
        UnsupportedFormat: too short.
    """
    if len(data) < _QEMU_OLD_SIZE:
        raise UnsupportedFormat("QEMU note", f"{len(data)} bytes, {_QEMU_SIZE} expected")

    def segment_base(number: int) -> int:
        *_, base = _QEMU_SEGMENT.unpack_from(data, _QEMU_SEGMENTS_OFFSET + number * _QEMU_SEGMENT.size)
        return int(base)

    cr = _QEMU_CR.unpack_from(data, _QEMU_CR_OFFSET)
    (kernel_gs_base,) = (
        _QEMU_KERNEL_GS.unpack_from(data, _QEMU_KERNEL_GS_OFFSET) if len(data) >= _QEMU_SIZE else (None,)
    )
    return QemuCpuState(
        ip=_QEMU_REGISTER.unpack_from(data, _QEMU_IP_OFFSET)[0],
        sp=_QEMU_REGISTER.unpack_from(data, _QEMU_SP_OFFSET)[0],
        cr3=cr[3],
        cr4=cr[4],
        idt=segment_base(_QEMU_IDT_NUMBER),
        gs_base=segment_base(_QEMU_GS_NUMBER),
        kernel_gs_base=kernel_gs_base,
    )
