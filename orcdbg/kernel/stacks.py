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


# Names in `struct cea_exception_stacks`.
_EXCEPTION_STACKS = (
    ("DF_stack", StackKind.DF),
    ("NMI_stack", StackKind.NMI),
    ("DB_stack", StackKind.DB),
    ("MCE_stack", StackKind.MCE),
    ("VC_stack", StackKind.VC),
    ("VC2_stack", StackKind.VC),
)


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
    top = _pointer(linux, "hardirq_stack_ptr", "hardirq_stack_ptr", cpu)
    if top is None:
        return None
    end = top + 15 & ~15  # 5.12 and later point at the last word (end - 8), before at the end
    size = linux.types.size("irq_stack") if linux.types.has("irq_stack", "stack") else DEFAULT_IRQ_STACK
    return Stack(StackKind.IRQ, end - size, end, cpu)


def exception_stacks(linux: Linux, cpu: int) -> list[Stack]:
    """A CPU's IST stacks and its entry stack, all inside its cpu_entry_area."""
    area = _pointer(linux, "cea_exception_stacks", "", cpu)
    if area is None:
        return []
    found = []
    for member, kind in _EXCEPTION_STACKS:
        if linux.types.has("cea_exception_stacks", member):
            begin = area + linux.types.offset("cea_exception_stacks", member)
            found.append(Stack(kind, begin, begin + linux.types.size_of_member("cea_exception_stacks", member), cpu))
    if linux.types.has("cpu_entry_area", "entry_stack_page"):
        start = area - linux.types.offset("cpu_entry_area", "estacks")
        begin = start + linux.types.offset("cpu_entry_area", "entry_stack_page")
        found.append(Stack(StackKind.ENTRY, begin, begin + PAGE, cpu))
    return found


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
