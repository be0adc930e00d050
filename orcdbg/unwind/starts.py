"""From which registers does the walk of a task begin?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from orcdbg.base.errors import MemoryFault, NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.reasons import Reason
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import GUARD, Stack, StackKind, cpu_stacks, task_stack
from orcdbg.kernel.tasks import current_task, started_cpus
from orcdbg.snapshot.machine import CpuState
from orcdbg.unwind.frame import NEW_TASK, FrameKind, RegisterValue
from orcdbg.unwind.reasons import CurrentDisagrees, MaybeSwitchingTo, SwitchingFrom, SwitchingTo
from orcdbg.unwind.stopped_cpus import hidden_registers
from orcdbg.unwind.walker import State

# struct inactive_task_frame, arch/x86/include/asm/switch_to.h, for kernels whose BTF lacks it.
INACTIVE = {"r15": 0, "r14": 8, "r13": 16, "r12": 24, "bx": 32, "bp": 40, "ret_addr": 48}
_INACTIVE_SIZE = 56
_NAMES = {"bx": "rbx", "bp": "rbp", "ret_addr": "rip"}

Running = Mapping[int, tuple[int, CpuState | None]]
# Stacks that an exception begins at their top, whatever the CPU was on. Interrupts are off during a switch.
_EXCEPTION_STACKS = (StackKind.NMI, StackKind.DF, StackKind.DB, StackKind.MCE, StackKind.VC)
# Below an exception stack's top: the stack pointer among the five words that the CPU pushes, and where entry code of an NMI
# keeps a copy that no nested NMI overwrites (see stopped_cpus.py).
_PUSHED_SP, _OUTERMOST_SP = 16, 112
_IP_BELOW_SP = 24  # among these words
# The task whose stack a CPU is on, by its `current`, a stack pointer, and the ip where that one was interrupted, if it was.
OwnerOf = Callable[[int, int, int | None], int | None]


def running_start(cpu: CpuState) -> State:
    """The state of a CPU whose registers the snapshot recorded: its ip is exact, and all registers are known."""
    registers = {name: RegisterValue(value, cpu.source) for name, value in cpu.registers.items()}
    if "cs" in registers:  # not every format has it
        registers["cs"] = registers["cs"]._replace(value=registers["cs"].value & 0xFFFF)
    registers.pop("orig_rax", None)  # no CPU has such a register: the word of a note says nothing
    kind = FrameKind.USER if cpu.is_in_user_mode else FrameKind.INTERRUPT
    return State(registers["rip"].value, True, registers, kind, None)


def sleeping_start(linux: Linux, task: int) -> State:
    """The state of a task that was switched out, from its `struct inactive_task_frame`."""
    sp = linux.member("task_struct", "thread.sp", task)
    layout, size = inactive_frame(linux)
    values = {name: read_u64(linux.memory, sp + at) for name, at in layout.items()}
    registers = switched_out_registers(values, sp, layout, sp + size)
    ip = registers["rip"].value
    slot = sp + size - 8
    # A task that never ran starts at an address that no call put there: the kernel too takes it as exact.
    return State(ip, ip == new_task_ip(linux), registers, FrameKind.CALL, slot)


def new_task_ip(linux: Linux) -> int | None:
    """The saved ip of a task that never ran."""
    return next((a for name in reversed(NEW_TASK) if (a := linux.find_address(name)) is not None), None)


def inactive_frame(linux: Linux) -> tuple[dict[str, int], int]:
    """Where `struct inactive_task_frame` keeps each register, and its size."""
    has_type = linux.types.has("inactive_task_frame", "ret_addr")
    size = linux.types.size("inactive_task_frame") if has_type else _INACTIVE_SIZE
    offset = functools.partial(linux.types.offset, "inactive_task_frame") if has_type else INACTIVE.__getitem__
    return {_NAMES.get(member, member): offset(member) for member in INACTIVE}, size


def switched_out_registers(
    values: Mapping[str, int], sp: int, layout: Mapping[str, int], rsp: int
) -> dict[str, RegisterValue]:
    """The registers of a task that was switched out: `values` as saved at `sp`, and its stack pointer above them."""
    registers = {name: RegisterValue(values[name], f"inactive_task_frame {sp:#x} +{at}") for name, at in layout.items()}
    return registers | {"rsp": RegisterValue(rsp, f"task_struct.thread.sp + {rsp - sp}")}


def tasks_on_cpus(linux: Linux, cpus: Sequence[CpuState]) -> dict[int, tuple[int, CpuState | None]]:
    """For each task that is the `current` of some CPU: that CPU, and the recorded registers that are its.

    A task runs on one CPU. Early in the boot the areas of all CPUs are one, and each seems to run the first task: it is the
    online CPU's then. A CPU that was never started names the first task too.
    """
    on_cpus: dict[int, list[int]] = {}
    for cpu in range(linux.cpu_limit()):
        task = current_task(linux, cpu)
        if task:
            on_cpus.setdefault(task, []).append(cpu)

    first_task = linux.find_address("init_task")
    is_in_doubt = first_task in on_cpus or any(len(numbers) > 1 for numbers in on_cpus.values())
    online = set(started_cpus(linux)) if is_in_doubt else set[int]()
    if first_task is not None and first_task in on_cpus:
        started = [cpu for cpu in on_cpus[first_task] if cpu in online or _is_own_cpu(linux, first_task, cpu)]
        on_cpus[first_task] = started

    current = {
        min(numbers, key=lambda cpu: (cpu not in online, cpu)): task for task, numbers in on_cpus.items() if numbers
    }
    notes = _notes_by_cpu(linux, cpus, current)
    return {task: (cpu, notes.get(cpu)) for cpu, task in current.items()}


def _is_own_cpu(linux: Linux, task: int, cpu: int) -> bool:
    """Whether a task says that it is on a CPU, or says nothing.

    The image holds `current_task = &init_task` for every CPU, and that stays so where a CPU is possible and never comes up. A
    CPU that was stopped by a panic is offline as well, but its task names it.
    """
    try:
        own = linux.first_member("task_struct", ("thread_info.cpu", "cpu"), task)
    except MemoryFault:
        return True
    return own is None or own & 0xFFFF_FFFF == cpu


def _notes_by_cpu(linux: Linux, cpus: Sequence[CpuState], current: Mapping[int, int]) -> dict[int, CpuState]:
    """Which note is of which CPU.

    QEMU writes a note a CPU, in order; but a kernel that was started by another's crash counts from the CPU that crashed,
    and leaves the others standing in the old kernel. So the base of a CPU's own data counts, where it is known. kdump
    leaves out CPUs that saved none, so its notes are told by the stack that their rsp is on, else by the pid they name. A
    CPU without a note may have its registers in memory.
    """
    # QEMU's notes have CR3, kdump's have not.
    is_in_order = bool(cpus) and all(state.cr3 is not None for state in cpus)
    told = _notes_by_gs_base(linux, cpus, current) if is_in_order else _notes_by_task(linux, cpus, current)

    hidden = {cpu: hidden_registers(linux, cpu, task) for cpu, task in current.items() if cpu not in told}
    return told | {cpu: state for cpu, state in hidden.items() if state is not None}


def _notes_by_gs_base(linux: Linux, cpus: Sequence[CpuState], current: Mapping[int, int]) -> dict[int, CpuState]:
    """Notes by the number of the CPU whose data their kernel's GS base is; by their order where no base tells it.

    A base that is a kernel's and none of this kernel's leaves the note out: that CPU is in another kernel.
    """
    in_order = {state.cpu: state for state in cpus if not state.possible_kernel_bases}
    numbers = [_own_number(linux, state, current) for state in cpus]
    by_base = {cpu: state for cpu, state in zip(numbers, cpus, strict=True) if cpu is not None}
    return in_order | by_base


def _notes_by_task(linux: Linux, cpus: Sequence[CpuState], current: Mapping[int, int]) -> dict[int, CpuState]:
    """Notes by the CPU that runs the task whose stack their rsp is on, or whose pid they name; each note once."""
    free = list(cpus)
    notes: dict[int, CpuState] = {}
    for cpu, task in current.items():
        note = _note_on_stacks(free, stacks_of(linux, task, cpu)) or _note_of_pid(free, linux, task)
        if note is not None:
            notes[cpu] = note
            free.remove(note)
    return notes


def _note_on_stacks(notes: Sequence[CpuState], stacks: Sequence[Stack]) -> CpuState | None:
    """The first note whose stack pointer is on one of the stacks."""
    on_stacks = (note for note in notes if any(stack.holds(note.registers["rsp"]) for stack in stacks))
    return next(on_stacks, None)


def _note_of_pid(notes: Sequence[CpuState], linux: Linux, task: int) -> CpuState | None:
    """The first note that names a task's pid and is of a CPU on none of its stacks: in user mode, or between two tasks.

    All idle tasks have pid 0, which names none of them.
    """
    pid = linux.member("task_struct", "pid", task)
    return next((note for note in notes if note.pid == pid and (pid or note.is_in_user_mode)), None)


def _own_number(linux: Linux, state: CpuState, current: Mapping[int, int]) -> int | None:
    """The number that this kernel gives a CPU whose GS base is a kernel's; None where it is not this one's, or not known.

    In the kernel both bases may be some CPU's, because a program may have set its own to another CPU's data. Then the stack
    that the CPU is on decides, which no program chooses, then the order of the notes.
    """
    try:
        found = [_cpu_of_base(linux, state.cpu, base) for base in state.possible_kernel_bases]
    except (MemoryFault, NotFound):
        return state.cpu
    numbers = list(dict.fromkeys(number for number in found if number is not None))
    if len(numbers) < 2:
        return numbers[0] if numbers else None

    for number in numbers:
        stacks = stacks_of(linux, current[number], number) if number in current else cpu_stacks(linux, number)
        if _note_on_stacks([state], stacks):
            return number
    return state.cpu if state.cpu in numbers else numbers[0]


def _cpu_of_base(linux: Linux, likely: int, base: int) -> int | None:
    """The CPU whose own data is at a base, the likely one tried first."""
    limit = linux.cpu_limit()
    order = [likely, *range(limit)] if likely < limit else range(limit)
    return next((cpu for cpu in order if linux.per_cpu_offset(cpu) == base), None)


def stacks_of(linux: Linux, task: int, cpu: int | None) -> list[Stack]:
    """The stacks a walk of a task may touch: its own, and its CPU's when it is running."""
    own = task_stack(linux, task)
    others = cpu_stacks(linux, cpu) if cpu is not None else []
    return ([own] if own else []) + others


def on_cpus(linux: Linux, current: Running, owner_of: OwnerOf) -> tuple[Running, Mapping[int, Reason]]:
    """The tasks that CPUs run, by their stacks; and for the tasks between which a CPU is, the reason that says so.

    Args:
        linux: the kernel.
        current: for each task that is the `current` of a CPU, that CPU and its registers.
        owner_of: gives the task whose stack a place is on, other than the task that is `current` there.
    """
    running: dict[int, tuple[int, CpuState | None]] = {}
    reasons: dict[int, Reason] = {}
    for task, (cpu, note) in current.items():
        chosen = _chosen_next(linux, cpu)
        if note is None:
            running[task] = cpu, None
            if chosen is not None and chosen not in current:
                reasons[chosen] = MaybeSwitchingTo(cpu)
            continue
        owner = _other_owner(linux, task, cpu, note, owner_of)

        # No CPU goes over to a task that another one runs: such a stack pointer is somebody else's, or damaged.
        if owner is None or owner in current or owner in running:
            running[task] = cpu, note
            if chosen is not None and chosen != task and not _may_switch(linux, task, cpu, note):
                reasons[task] = reasons[chosen] = CurrentDisagrees(cpu, task, chosen)
            continue
        running[owner] = cpu, note
        reasons[task] = SwitchingFrom(cpu, owner)
        reasons[owner] = SwitchingTo(cpu, task)
    return running, reasons


def _chosen_next(linux: Linux, cpu: int) -> int | None:
    """The task that a CPU's scheduler has chosen, `rq->curr`: `current` is set to it at the end of the switch."""
    try:
        queue = linux.per_cpu("runqueues", cpu)
        return None if queue is None else linux.member("rq", "curr", queue) or None
    except (MemoryFault, NotFound):
        return None


def _may_switch(linux: Linux, task: int, cpu: int, note: CpuState) -> bool:
    """Whether a CPU may be in the scheduler, between its choice of the next task and the switch to that one's stack.

    It is on the stack of `task` then, or in an exception that interrupted it there: interrupts are off meanwhile, and in user
    mode nobody chooses.
    """
    if note.is_in_user_mode:
        return False
    try:
        own = task_stack(linux, task)
        sp = _below_exceptions(linux, cpu, note.registers["rsp"])[0]
    except MemoryFault:
        return True  # there is nothing to tell it by
    return own is not None and own.begin - GUARD <= sp <= own.end


def _other_owner(linux: Linux, task: int, cpu: int, note: CpuState, owner_of: OwnerOf) -> int | None:
    """The task whose stack a CPU is on, where it is another than `current`."""
    if note.is_in_user_mode:
        return None
    try:
        place = _place_on_task_stack(linux, task, cpu, note.registers["rsp"])
    except MemoryFault:
        return None
    return None if place is None else owner_of(task, *place)


def _place_on_task_stack(linux: Linux, task: int, cpu: int, sp: int) -> tuple[int, int | None] | None:
    """The stack pointer of what a CPU does for a task, below its exceptions; None on the stack of `task` and in interrupts.

    With it the ip that an exception has interrupted; None where the stack pointer is the CPU's own.
    """
    sp, ip = _below_exceptions(linux, cpu, sp)
    own = task_stack(linux, task)
    is_own = own is not None and own.begin - GUARD <= sp <= own.end
    is_on_stack_of_cpu = any(stack.begin < sp <= stack.end for stack in cpu_stacks(linux, cpu))
    return None if is_own or is_on_stack_of_cpu or not sp >> 63 else (sp, ip)


def _below_exceptions(linux: Linux, cpu: int, sp: int) -> tuple[int, int | None]:
    """The stack pointer that a CPU's exceptions interrupted, and the ip; `sp` itself, and no ip, where it is in none."""
    exceptions = [stack for stack in cpu_stacks(linux, cpu) if stack.kind in _EXCEPTION_STACKS]
    ip: int | None = None
    # Each stack is left once, so that damaged words lead nowhere twice.
    for _ in tuple(exceptions):
        stack = next((stack for stack in exceptions if stack.begin < sp <= stack.end), None)
        if stack is None:
            break

        exceptions.remove(stack)
        words = stack.end - _PUSHED_SP
        sp = read_u64(linux.memory, words)
        if stack.kind is StackKind.NMI and stack.begin < sp <= stack.end:
            words = stack.end - _OUTERMOST_SP
            sp = read_u64(linux.memory, words)
        ip = read_u64(linux.memory, words - _IP_BELOW_SP)
    return sp, ip
