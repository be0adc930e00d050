"""How is an ELF core, as QEMU's dump-guest-memory and kdump write it, read as a stopped machine?

Only physical addresses are believed: QEMU without paging writes p_vaddr = p_paddr, which is no virtual mapping at all
(a NULL pointer would read the BIOS vector table).
"""

from __future__ import annotations

import bisect
import struct

from orcdbg.base.errors import NotInSnapshot, UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats.elf import PT_LOAD, ElfFile, Note, Segment
from orcdbg.snapshot.machine import CpuState, Snapshot
from orcdbg.snapshot.vmcoreinfo import parse_vmcoreinfo

NT_PRSTATUS = 1
_PRSTATUS_SIZE, _PR_PID, _PR_REG = 336, 32, 112
# Order of pr_reg, struct user_regs_struct in arch/x86/include/asm/user_64.h.
_PR_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_QEMU_SIZE, _QEMU_SEGMENT, _QEMU_IDT, _QEMU_GS, _QEMU_CR = 440, 152, 9, 4, 392


class SegmentMemory:
    """Physical memory as the PT_LOADs of a core: an AddressSpace."""

    def __init__(self, source: ByteSource, segments: list[Segment]) -> None:
        self._source = source
        self.segments = sorted(segments, key=lambda segment: segment.physical)
        self._starts = [segment.physical for segment in self.segments]

    def _piece(self, address: int, size: int) -> tuple[int, int]:
        """File offset of `address` and how many of `size` bytes follow there."""
        index = bisect.bisect_right(self._starts, address) - 1
        while index >= 0:
            segment = self.segments[index]
            inside = address - segment.physical
            offset = segment.offset + inside
            length = min(segment.file_size - inside, size, self._source.size - offset)
            if length > 0:
                return offset, length
            index -= 1  # segments may overlap: an earlier, longer one can still hold the address
            if inside > 1 << 46:
                break
        raise NotInSnapshot("physical", address, size)

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address; NotInSnapshot where no segment holds one of them."""
        out = []
        while True:
            offset, length = self._piece(address, size)
            out.append(self._source.read_at(offset, length))
            if length >= size:
                return b"".join(out)
            address, size = address + length, size - length


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


def _is_truncated(source: ByteSource, segments: list[Segment]) -> list[str]:
    lost = sum(min(s.file_size, max(0, s.offset + s.file_size - source.size)) for s in segments)
    if not lost:
        return []
    return [f"{source.name}: the file is cut off: {lost} bytes of memory that its headers name are not in it"]


def open_elf_core(source: ByteSource) -> Snapshot:
    """The snapshot in an ELF core.

    Raises:
        UnsupportedFormat: its headers or notes are damaged or cut off, or it holds no memory.
    """
    elf = ElfFile(source)
    loads = [segment for segment in elf.segments if segment.type == PT_LOAD and segment.file_size]
    if not loads:
        raise UnsupportedFormat(source.name, "an ELF core without memory (no PT_LOAD)")
    notes = list(elf.notes())
    statuses = [note for note in notes if note.name == "CORE" and note.type == NT_PRSTATUS]
    qemu = [note for note in notes if note.name == "QEMU" and note.type == 0]
    cpus = [
        _cpu_state(cpu, note, qemu[cpu] if len(qemu) == len(statuses) else None) for cpu, note in enumerate(statuses)
    ]
    info = next((parse_vmcoreinfo(note.data) for note in notes if note.name == "VMCOREINFO"), {})
    by_whom = "QEMU" if qemu else "kdump"
    return Snapshot(
        source.name,
        f"ELF core ({by_whom})",
        SegmentMemory(source, loads),
        cpus,
        info,
        _is_truncated(source, loads),
    )
