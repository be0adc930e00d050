"""What does every snapshot offer, whatever file it came from?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orcdbg.base.reading import AddressSpace
from orcdbg.formats.elf import Note


@dataclass(frozen=True, slots=True)
class CpuState:
    """One CPU's registers as the snapshot recorded them.

    `registers` is keyed by the names of `struct pt_regs` spelt as in gdb (rip, rsp, rbp, rax ... r15, rflags, cs, ss).
    `pid` is what the note says (a task's pid in a kdump, CPU number + 1 from QEMU), `cr3`, `cr4`, `idt`, `gs_base` (the
    base in use) and `kernel_gs_base` (the one that `swapgs` exchanges it for) are None where no note has them.
    """

    cpu: int
    source: str
    registers: Mapping[str, int]
    pid: int
    cr3: int | None = None
    cr4: int | None = None
    idt: int | None = None
    gs_base: int | None = None
    kernel_gs_base: int | None = None

    @property
    def is_in_user_mode(self) -> bool:
        """Whether the CPU ran a program when it was stopped."""
        cs = self.registers.get("cs")
        if cs is not None:
            return cs & 3 == 3
        # A format without it. A kernel that was sent to a wrong address has a low one too, but not a low stack.
        return all(self.registers.get(name, 1 << 63) < 1 << 63 for name in ("rip", "rsp"))

    @property
    def possible_kernel_bases(self) -> Sequence[int]:
        """What may be the base of the CPU's own kernel data, the likelier first; empty where neither can.

        A program sets its own base to whatever it likes (wrgsbase, 5.9), also to an address of the kernel. In user mode the
        kernel's base is the one that `swapgs` brings. In the kernel it is the one in use, but for a few instructions of entry
        and exit code, where it is still or already the other.
        """
        bases = (self.kernel_gs_base,) if self.is_in_user_mode else (self.gs_base, self.kernel_gs_base)
        return [base for base in bases if base is not None and base >> 63]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stopped machine: what every reader of snapshot files makes, those of plug-ins too.

    Attributes:
        path: the file, for messages.
        format: what the file is and who wrote it, in words for people; nothing is decided by them.
        physical: reads by physical address.
        cpus: the CPUs whose registers are known; empty where the format has none.
        vmcoreinfo: the lines of the kernel's VMCOREINFO note by their keys; empty without one.
        warnings: for the user to see once.
        ranges: gives [start, end) of all memory that the snapshot holds, in order; None where the reader cannot tell.
        notes: the ELF notes that it was made from, for who writes another snapshot of the same machine.
        left_out: gives how many bytes the file names but does not hold, by the words of `Absence`; `orcdbg checkup` shows
            them. None where the reader cannot tell.
        is_trimmed: whether `orcdbg trim` made it.
        is_live: whether it changes while it is read, as the running kernel's memory does.
    """

    path: str
    format: str
    physical: AddressSpace
    cpus: Sequence[CpuState]
    vmcoreinfo: Mapping[str, str]
    warnings: Sequence[str] = field(default=())
    ranges: Callable[[], Iterator[tuple[int, int]]] | None = None
    notes: Sequence[Note] = field(default=())
    left_out: Callable[[], Mapping[str, int]] | None = None
    is_trimmed: bool = False
    is_live: bool = False
