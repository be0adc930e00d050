"""Whose are a CPU's registers while it goes from one task to the next?

__switch_to_asm (arch/x86/entry/entry_64.S) saves the outgoing task's stack pointer in `thread.sp` and takes the incoming
one's; some 150 instructions later __switch_to (arch/x86/kernel/process_64.c) sets `current`. In between `current` names a
task that the CPU has left: the stack that rsp is on names the task that it runs.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping, Sequence

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.reasons import Reason
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.stacks import GUARD, Stack, StackKind, cpu_stacks, task_stack
from orcdbg.kernel.tasks import MAX_TASKS, all_task_addresses
from orcdbg.snapshot.machine import CpuState
from orcdbg.unwind.frame import Frame
from orcdbg.unwind.reasons import EntryHalfWritten, MaybeSwitchingTo, SwitchingFrom, SwitchingTo
from orcdbg.unwind.true_returns import TrueReturn, TrueReturns

Running = Mapping[int, tuple[int, CpuState | None]]
# Stacks that an exception begins at their top, whatever the CPU was on. Interrupts are off during a switch.
_EXCEPTION_STACKS = (StackKind.NMI, StackKind.DF, StackKind.DB, StackKind.MCE, StackKind.VC)
# Below an exception stack's top: the stack pointer among the five words that the CPU pushes, and where entry code of an NMI
# keeps a copy that no nested NMI overwrites (see stopped_cpus.py).
_PUSHED_SP, _OUTERMOST_SP = 16, 112


class TaskStacks:
    """The stacks of all tasks. They are read when the first is asked for: a question that most snapshots never raise."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    def owner(self, sp: int) -> int | None:
        """The task whose stack a stack pointer is on; None where it is on none."""
        # What is at the stack's end is an empty stack's.
        place = bisect.bisect_left(self._begins, sp) - 1
        stack = self._stacks[place] if place >= 0 else None
        return stack.task if stack is not None and stack.begin < sp <= stack.end else None

    @functools.cached_property
    def _stacks(self) -> list[Stack]:
        stacks: list[Stack] = []
        try:
            for address in all_task_addresses(self._linux, Budget(MAX_TASKS)):
                stack = task_stack(self._linux, address)
                if stack is not None:
                    stacks.append(stack)
        except OrcdbgError:
            pass  # a task list that breaks off: the stacks before the break are the ones there are
        return sorted(stacks, key=lambda stack: stack.begin)

    @functools.cached_property
    def _begins(self) -> list[int]:
        return [stack.begin for stack in self._stacks]


def on_cpus(linux: Linux, current: Running, stacks: TaskStacks) -> tuple[Running, Mapping[int, Reason]]:
    """The tasks that CPUs run, by their stacks; and for the tasks between which a CPU is, the reason that says so.

    Args:
        linux: the kernel.
        current: for each task that is the `current` of a CPU, that CPU and its registers.
        stacks: those of all tasks.
    """
    running: dict[int, tuple[int, CpuState | None]] = {}
    reasons: dict[int, Reason] = {}
    for task, (cpu, note) in current.items():
        if note is None:
            running[task] = cpu, None
            chosen = _chosen_next(linux, cpu)
            if chosen is not None and chosen not in current:
                reasons[chosen] = MaybeSwitchingTo(cpu)
            continue
        owner = _other_owner(linux, task, cpu, note, stacks)

        # No CPU goes over to a task that another one runs: such a stack pointer is somebody else's, or damaged.
        if owner is None or owner in current or owner in running:
            running[task] = cpu, note
            continue
        running[owner] = cpu, note
        reasons[task] = SwitchingFrom(cpu, owner)
        reasons[owner] = SwitchingTo(cpu, task)
    return running, reasons


def _chosen_next(linux: Linux, cpu: int) -> int | None:
    """The task that a CPU's scheduler has chosen, `rq->curr`: `current` is set to it at the end of the switch."""
    try:
        queue = linux.per_cpu("runqueues", cpu)
        return None if queue is None else linux.member("rq", "curr", queue)
    except (MemoryFault, NotFound):
        return None


def _other_owner(linux: Linux, task: int, cpu: int, note: CpuState, stacks: TaskStacks) -> int | None:
    """The task whose stack a CPU is on, where it is another than `current`."""
    if note.is_in_user_mode:
        return None
    try:
        sp = _task_stack_pointer(linux, task, cpu, note.registers["rsp"])
    except MemoryFault:
        return None
    return None if sp is None else stacks.owner(sp)


def _task_stack_pointer(linux: Linux, task: int, cpu: int, sp: int) -> int | None:
    """The stack pointer of what a CPU does for a task, below its exceptions; None on the stack of `task` and in interrupts."""
    own = task_stack(linux, task)
    if own is not None and own.begin - GUARD <= sp <= own.end:
        return None

    exceptions = {stack.kind: stack for stack in cpu_stacks(linux, cpu)}
    # Each stack is left once, so that damaged words lead nowhere twice.
    for _ in range(len(exceptions) + 1):
        stack = next((stack for stack in exceptions.values() if stack.begin < sp <= stack.end), None)
        if stack is None:
            is_own = own is not None and own.begin - GUARD <= sp <= own.end
            return sp if sp >> 63 and not is_own else None
        if stack.kind not in _EXCEPTION_STACKS:
            return None

        del exceptions[stack.kind]
        sp = read_u64(linux.memory, stack.end - _PUSHED_SP)
        if stack.kind is StackKind.NMI and stack.begin < sp <= stack.end:
            sp = read_u64(linux.memory, stack.end - _OUTERMOST_SP)
    return None


class ReturnsDuringSwitch(TrueReturns):
    """True return addresses while a CPU is on the incoming task's stack and tracers still keep them for the outgoing one.

    They ask `current`: what __switch_to calls before it sets that is kept in the outgoing task's records, by slots on the
    incoming task's stack.

    Args:
        own: those of the incoming task.
        outgoing: those of the outgoing one.
    """

    def __init__(self, own: TrueReturns, outgoing: TrueReturns) -> None:
        self._own = own
        self._outgoing = outgoing

    def of(self, frames: Sequence[Frame], slot: int, word: int) -> TrueReturn | Reason | None:
        """As `TrueReturns.of`, from the outgoing task's records where they name the slot."""
        answer = self._outgoing.of(frames, slot, word)
        if not isinstance(answer, Reason):
            return answer

        # The entry that a tracer may just be writing is not among the incoming task's.
        own = self._own.of(frames, slot, word)
        if isinstance(own, TrueReturn) and isinstance(own.doubt, EntryHalfWritten):
            return own._replace(doubt=None)
        return own
