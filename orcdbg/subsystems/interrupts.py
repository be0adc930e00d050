"""Which interrupts are there, who handles them, and how often did they come?

Mirrors kernel/irq/irqdesc.c, kernel/irq/proc.c, kernel/softirq.c, arch/x86/kernel/idt.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.kernel.tasks import started_cpus
from orcdbg.subsystems.containers import lists, maple_tree, xarray
from orcdbg.subsystems.kernel_variables import cpu_mask, find_variable, of_cpu, per_cpu_variable, variable
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# NR_IRQS is some 500,000 on a kernel for 8192 CPUs, and few of them exist.
MAX_INTERRUPTS = 1 << 17
_LONGEST_NAME = 256
_VECTORS = 256
_GATE_SIZE = 16

# enum of include/linux/interrupt.h.
SOFTIRQS = ("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU")


@dataclass(frozen=True, slots=True)
class Action:
    """A handler of an interrupt: `name` as it was requested, `handler` and `thread` addresses of functions, 0 without."""

    address: int
    name: str
    handler: int
    thread_function: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An interrupt.

    Attributes:
        number: Linux' own number.
        address: of the `irq_desc`.
        chip: the name of the interrupt controller; empty without one.
        hardware_number: the controller's number.
        actions: its handlers.
        counts: how often it came, by CPU.
        affinity: CPUs that it may go to; None where it cannot be read.
    """

    number: int
    address: int
    chip: str
    hardware_number: int
    actions: list[Action]
    counts: dict[int, int]
    affinity: list[int] | None


@dataclass(frozen=True, slots=True)
class Softirq:
    """A kind of softirq: `action` is its function's address, `counts` by CPU, `pending` the CPUs where it waits."""

    number: int
    name: str
    action: int
    counts: dict[int, int]
    pending: list[int]


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate of the interrupt descriptor table: `stack` is the IST number, 0 for the current stack."""

    vector: int
    handler: int
    privilege: int
    stack: int


def _descriptors(program: Program, budget: Budget) -> Iterator[tuple[int, Object]]:
    """Numbers and `irq_desc`s."""
    tree = find_variable(program, "sparse_irqs", "maple_tree") if program.catalog.find("struct", "maple_tree") else None
    if tree is not None:
        # Since 6.5 (721255b9826b) in a maple tree.
        for entry in maple_tree.entries(tree, budget):
            yield entry.index, program.object("irq_desc", entry.value)
        return
    root = find_variable(program, "irq_desc_tree", "xarray")
    if root is not None:
        for entry in xarray.entries(root, budget):
            yield entry.index, program.object("irq_desc", entry.value)
        return
    # Without CONFIG_SPARSE_IRQ there is an array of them, whose length its symbol alone tells.
    address = program.linux.address("irq_desc")
    size = program.type("irq_desc").size
    length = min(int(variable(program, "nr_irqs", "int")), MAX_INTERRUPTS)
    for number in budget.entries(max(length, 0), address, "interrupts"):
        yield number, program.object("irq_desc", address + number * size)


def interrupts(program: Program, budget: Budget) -> list[Interrupt]:
    """All interrupts that have a descriptor; what cannot be read of them is the budget's."""
    cpus = started_cpus(program.linux)
    found = []
    for number, descriptor in _descriptors(program, budget):
        try:
            found.append(_interrupt(number, descriptor, cpus, budget))
        except OrcdbgError as error:
            budget.note_error(f"interrupt {number}", descriptor.address_ or 0, error)
    return found


def _interrupt(number: int, descriptor: Object, cpus: list[int], budget: Budget) -> Interrupt:
    chip = descriptor.member_("irq_data.chip")
    name = ""
    if int(chip) and int(chip.member_("name")):
        name = chip.member_("name").string_(_LONGEST_NAME)
    actions = list(_actions(int(descriptor.member_("action")), descriptor.program_, budget))
    counters = descriptor.member_("kstat_irqs")
    counts = {cpu: _count(of_cpu(counters, cpu)) for cpu in cpus} if int(counters) else {}
    try:
        affinity: list[int] | None = cpu_mask(descriptor.member_("irq_common_data.affinity"))
    except OrcdbgError as error:
        budget.note_error(f"the affinity of interrupt {number}", descriptor.address_ or 0, error)
        affinity = None
    hardware = int(descriptor.member_("irq_data.hwirq"))
    return Interrupt(number, descriptor.address_ or 0, name, hardware, actions, counts, affinity)


def _count(counter: Object) -> int:
    # Since 6.11 (99cf63c56b7a) a structure of its own, with room for a reference value.
    return int(counter.member_("cnt") if counter.has_member_("cnt") else counter)


def _actions(first: int, program: Program, budget: Budget) -> Iterator[Action]:
    for action in lists.chained(first, program, "irqaction", "next", budget):
        try:
            name = action.member_("name")
            yield Action(
                action.address_ or 0,
                name.string_(_LONGEST_NAME) if int(name) else "",
                int(action.member_("handler")),
                int(action.member_("thread_fn")),
            )
        except OrcdbgError as error:
            budget.note_error("a handler of an interrupt", action.address_ or 0, error)


def softirqs(program: Program) -> list[Softirq]:
    """The kinds of softirqs, with the function and the counts of each."""
    vectors = program.object("struct softirq_action", program.linux.address("softirq_vec"))
    cpus = started_cpus(program.linux)
    counts = {cpu: per_cpu_variable(program, "kstat", "struct kernel_stat", cpu).member_("softirqs") for cpu in cpus}
    waiting = {cpu: _pending_softirqs(program, cpu) for cpu in cpus}
    size = program.type("softirq_action").size
    return [
        Softirq(
            number,
            name,
            int(program.object("softirq_action", (vectors.address_ or 0) + number * size).member_("action")),
            {cpu: int(counts[cpu][number]) for cpu in cpus},
            [cpu for cpu in cpus if waiting[cpu] >> number & 1],
        )
        for number, name in enumerate(SOFTIRQS)
    ]


def _pending_softirqs(program: Program, cpu: int) -> int:
    """local_softirq_pending() of a CPU, wherever this kernel keeps it."""
    address = program.linux.per_cpu("__softirq_pending", cpu)
    if address is not None:
        # Since 6.15 (01c7bc5198e9) a variable of its own again.
        return int(program.object("u16", address))
    for name, type_, member in (
        # 5.6 to 6.1 and before: of irq_stat; 6.2 to 6.14 (f3c1eb6b5b2e): of pcpu_hot.
        ("pcpu_hot", "struct pcpu_hot", "softirq_pending"),
        ("irq_stat", "irq_cpustat_t", "__softirq_pending"),
    ):
        try:
            return int(per_cpu_variable(program, name, type_, cpu).member_(member))
        except NotFound:
            continue
    raise NotFound("variable", "__softirq_pending")


def gates(program: Program) -> list[Gate]:
    """The gates of the interrupt descriptor table."""
    data = program.memory.read(program.linux.address("idt_table"), _VECTORS * _GATE_SIZE)
    found = []
    for vector in range(_VECTORS):
        low, high = (int.from_bytes(data[at : at + 8], "little") for at in (16 * vector, 16 * vector + 8))
        handler = low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32
        found.append(Gate(vector, handler, low >> 45 & 3, low >> 32 & 7))
    return found
