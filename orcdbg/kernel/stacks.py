"""Which memory ranges are stacks, and which of them is an address on?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.linux import Linux
from orcdbg.x86.registers import PT_REGS_SIZE

DEFAULT_TASK_STACK = 16384
DEFAULT_IRQ_STACK = 16384
GUARD = PAGE  # bytes below a stack that nothing is mapped in, so that an overflow is a double fault


class StackKind(enum.Enum):
    """What a stack is for; the values are the JSON contract's words."""

    TASK = "task"
    IRQ = "irq"
    SOFTIRQ = "softirq"
    DF = "df"
    NMI = "nmi"
    DB = "db"
    MCE = "mce"
    VC = "vc"
    ENTRY = "entry"
    UNKNOWN = "unknown"  # no stack that the walk knows of


# Names in `struct cea_exception_stacks`. A #DB inside a #DB had a stack of its own from 5.2 (2a594d4ccf3f) to 5.7.
_EXCEPTION_STACKS = (
    ("DF_stack", StackKind.DF),
    ("NMI_stack", StackKind.NMI),
    ("DB_stack", StackKind.DB),
    ("DB1_stack", StackKind.DB),
    ("MCE_stack", StackKind.MCE),
    ("VC_stack", StackKind.VC),
    ("VC2_stack", StackKind.VC),
)
# What the words of `struct orig_ist` are of, in order.
_ORIGINAL_STACKS = (StackKind.DF, StackKind.NMI, StackKind.DB, StackKind.MCE)
# Types of the interrupt stack; until 5.1 the union had the stack protector's canary at its bottom (e6401c130931).
_IRQ_STACKS = (("irq_stack", "stack"), ("irq_stack_union", "irq_stack"))
_MAX_EXCEPTION_STACK = 16 * PAGE  # KASAN doubles the two pages of #DB's
# The page of the entry stack in `struct cpu_entry_area`; 4.16 renamed it (4fe2d8b11a37).
_ENTRY_STACKS = ("entry_stack_page", "SYSENTER_stack_page")


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack: addresses `begin` (lowest) and `end` (one past the highest)."""

    kind: StackKind
    begin: int
    end: int
    cpu: int | None = None
    task: int | None = None

    def holds(self, address: int, size: int = 1) -> bool:
        """True when all `size` bytes at `address` are on this stack."""
        return self.begin <= address and address + size <= self.end

    def has_overflowed(self, sp: int) -> bool:
        """True for a stack pointer in the page below."""
        return self.begin - GUARD <= sp < self.begin


def task_stack_size(linux: Linux) -> int:
    """THREAD_SIZE, by the size of `union thread_union`."""
    try:
        return linux.types.size_of_member("thread_union", "stack") or DEFAULT_TASK_STACK
    except NotFound:
        return DEFAULT_TASK_STACK


def task_stack(linux: Linux, task: int) -> Stack | None:
    """A task's own stack; None for a task whose stack was given back."""
    begin = linux.member("task_struct", "stack", task)
    return Stack(StackKind.TASK, begin, begin + task_stack_size(linux), task=task) if begin else None


def _pointer(linux: Linux, name: str, hot_member: str, cpu: int) -> int | None:
    """A per-CPU pointer variable, which 6.2 to 6.14 keep inside `pcpu_hot`."""
    address = linux.per_cpu(name, cpu)
    if address is None and linux.types.has("pcpu_hot", hot_member):
        hot = linux.per_cpu("pcpu_hot", cpu)
        address = None if hot is None else hot + linux.types.offset("pcpu_hot", hot_member)
    try:
        return None if address is None else read_u64(linux.memory, address) or None
    except MemoryFault:
        return None


def irq_stack(linux: Linux, cpu: int) -> Stack | None:
    """A CPU's hard interrupt stack, on which softirqs run too."""
    # 5.2 gave the pointer its name, together with guard pages (758a2e312228).
    top = _pointer(linux, "hardirq_stack_ptr", "hardirq_stack_ptr", cpu) or _pointer(linux, "irq_stack_ptr", "", cpu)
    if top is None:
        return None
    end = top + 15 & ~15  # 5.12 and later point at the last word (end - 8), before at the end
    types = linux.types
    size = next((types.size_of_member(*member) for member in _IRQ_STACKS if types.has(*member)), DEFAULT_IRQ_STACK)
    return Stack(StackKind.IRQ, end - size, end, cpu)


def exception_stacks(linux: Linux, cpu: int) -> list[Stack]:
    """A CPU's IST stacks and its entry stack, all inside its cpu_entry_area where the kernel has one (since 4.15)."""
    area = _pointer(linux, "cea_exception_stacks", "", cpu)
    if area is None:
        return _original_stacks(linux, cpu)
    found = []
    for member, kind in _EXCEPTION_STACKS:
        if linux.types.has("cea_exception_stacks", member):
            begin = area + linux.types.offset("cea_exception_stacks", member)
            found.append(Stack(kind, begin, begin + linux.types.size_of_member("cea_exception_stacks", member), cpu))
    return found + _entry_stack(linux, cpu, "estacks", area)


def _original_stacks(linux: Linux, cpu: int) -> list[Stack]:
    """The IST stacks by `orig_ist`, which has the end of each; before 5.2 (2a594d4ccf3f, 4d68c3d0ecd5).

    They lie side by side in this order. #DF's, the first, is as long as that of NMIs.
    """
    address = linux.per_cpu("orig_ist", cpu)
    if address is None:
        return []
    try:
        ends = [read_u64(linux.memory, address + 8 * number) for number in range(len(_ORIGINAL_STACKS))]
    except MemoryFault:
        return []
    first = 2 * ends[0] - ends[1]

    found = []
    for kind, begin, end in zip(_ORIGINAL_STACKS, (first, *ends), ends, strict=False):
        # All are zero before the CPU was set up; damaged words must not make a stack of half of memory.
        if not 0 < end - begin <= _MAX_EXCEPTION_STACK or begin % PAGE or end % PAGE:
            return []
        found.append(Stack(kind, begin, end, cpu))
    return found + _entry_stack(linux, cpu, "exception_stacks", first)


def _entry_stack(linux: Linux, cpu: int, member: str, address: int) -> list[Stack]:
    """The entry stack of a CPU's cpu_entry_area, whose `member` is at an address; none before 4.15 (7fb983b4dd56)."""
    page = next((name for name in _ENTRY_STACKS if linux.types.has("cpu_entry_area", name)), None)
    if page is None or not linux.types.has("cpu_entry_area", member):
        return []
    area = address - linux.types.offset("cpu_entry_area", member)
    begin = area + linux.types.offset("cpu_entry_area", page)
    return [Stack(StackKind.ENTRY, begin, begin + PAGE, cpu)]


def cpu_stacks(linux: Linux, cpu: int) -> list[Stack]:
    """All stacks that belong to a CPU, in the order in which the kernel's unwinder looks at them."""
    irq = irq_stack(linux, cpu)
    exceptions = exception_stacks(linux, cpu)
    entry = [stack for stack in exceptions if stack.kind is StackKind.ENTRY]
    return [s for s in exceptions if s.kind is not StackKind.ENTRY] + ([irq] if irq else []) + entry


def task_registers(linux: Linux, stack: Stack) -> int:
    """Address of the user-mode pt_regs at the top of a task's stack (task_pt_regs)."""
    return stack.end - bytes_at_top(linux)


def bytes_at_top(linux: Linux) -> int:
    """Bytes from a task's user-mode pt_regs to its stack's end.

    A kernel built for FRED keeps 16 bytes free above it, whether or not the CPU has FRED.
    """
    padding = 16 if linux.types.has("fred_frame", "regs") else 0
    return PT_REGS_SIZE + padding
