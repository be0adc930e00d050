"""What is the stack of this task, and how does it end?"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import read_memory_pieces
from orcdbg.base.reasons import Reason
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.stacks import Stack, StackKind, task_registers, task_stack, task_stack_size
from orcdbg.kernel.tasks import MAX_TASKS, Task, all_task_addresses
from orcdbg.snapshot.machine import CpuState
from orcdbg.unwind.batch.lockstep import Found, Lockstep, Sleeper
from orcdbg.unwind.frame import End, Frame, FrameKind, StackTrace
from orcdbg.unwind.reasons import (
    CpuNotSaved,
    NotBehindSwitch,
    OnlyText,
    StackGone,
    StackPointerElsewhere,
    StartUnreadable,
)
from orcdbg.unwind.saved_registers import is_user, saved_registers
from orcdbg.unwind.scan import Scan
from orcdbg.unwind.starts import (
    inactive_frame,
    new_task_ip,
    running_start,
    sleeping_start,
    stacks_of,
    tasks_on_cpus,
)
from orcdbg.unwind.true_returns import TrueReturns
from orcdbg.unwind.user_edge import add_user
from orcdbg.unwind.walker import (
    MAX_FRAMES,
    State,
    Terrain,
    Walk,
    WalkEnd,
    Walker,
)
from orcdbg.x86.registers import PT_REGS, PT_REGS_SIZE

_IDLE_LOOPS = ("do_idle", "cpu_startup_entry")


class Unwinder:
    """Walks tasks of one snapshot.

    Args:
        terrain: the kernel.
        cpus: the recorded CPUs that run it.
    """

    def __init__(self, terrain: Terrain, cpus: Sequence[CpuState]) -> None:
        self.terrain = terrain
        self._code = terrain.code
        self._linux = terrain.code.linux
        self._cpus = cpus

    @functools.cached_property
    def running(self) -> dict[int, tuple[int, CpuState | None]]:
        """Running tasks by address: CPU, and its recorded registers if there are any."""
        return tasks_on_cpus(self._linux, self._cpus)

    def trace(self, task: Task) -> StackTrace:
        """The stack of a task; what cannot be read becomes the reason why the walk stopped."""
        cpu, note = self.running.get(task.address, (None, None))
        is_running = task.address in self.running
        source = "none"
        try:
            if is_running and note is None:
                walk = Walk(end_reason=CpuNotSaved(cpu))
            elif note is not None:
                source = note.source
                walk = self._walk(task, cpu, running_start(note))
            else:
                source = "inactive_task_frame"
                walk = self._sleeping(task)
        except MemoryFault as error:
            walk = Walk(end_reason=StartUnreadable(str(error)))
        end = _end_of(task, walk)
        shown_cpu = cpu if is_running else task.cpu
        return StackTrace(
            task.address, task.pid, task.comm, shown_cpu, is_running, source, tuple(walk.frames), end, walk.end_reason
        )

    def traces(self, tasks: Sequence[Task]) -> list[StackTrace]:
        """The stacks of many tasks: what `trace` says of each, at a small part of its price where tasks sleep."""
        candidates = [task for task in tasks if task.pid and task.stack and task.address not in self.running]
        found: dict[int, Found] = {}
        for task, one in zip(candidates, self._lockstep.walk(self._sleepers(candidates)), strict=True):
            if one is not None:
                found[task.address] = one
        return [
            self._shared(task, found[task.address]) if task.address in found else self.trace(task) for task in tasks
        ]

    @functools.cached_property
    def _lockstep(self) -> Lockstep:
        return Lockstep(self.terrain, *inactive_frame(self._linux), self._is_plain_start)

    def _is_plain_start(self, ip: int) -> bool:
        return (
            ip != new_task_ip(self._linux) and self._start_problem(State(ip, False, {}, FrameKind.CALL, None)) is None
        )

    def _sleepers(self, tasks: Sequence[Task]) -> list[Sleeper]:
        """Where the tasks' stacks are used; one whose stack pointer cannot be read is on no stack."""
        size, at = task_stack_size(self._linux), self._linux.types.offset("task_struct", "thread.sp")
        places = [task.address + at & U64 for task in tasks]
        words = read_memory_pieces(self._linux.memory, places, [8] * len(places))
        return [
            Sleeper(
                int.from_bytes(word or b"", "little"), task.stack, min(task.stack + size, U64), task.is_kernel_thread
            )
            for task, word in zip(tasks, words, strict=True)
        ]

    def _shared(self, task: Task, found: Found) -> StackTrace:
        source = "inactive_task_frame"
        return StackTrace(task.address, task.pid, task.comm, task.cpu, False, source, found.frames, found.end, None)

    def from_state(self, task: Task, state: State, source: str, most: int = MAX_FRAMES) -> StackTrace:
        """The stack from registers that the user gave, over the stacks of `task` and its CPU, or its innermost frames."""
        cpu, _ = self.running.get(task.address, (task.cpu, None))
        walk = self._walk(task, cpu, state, most)
        end = _end_of(task, walk)
        frames = tuple(walk.frames)
        return StackTrace(task.address, task.pid, task.comm, cpu, False, source, frames, end, walk.end_reason)

    def _walk(self, task: Task, cpu: int | None, start: State, most: int = MAX_FRAMES) -> Walk:
        stacks = stacks_of(self._linux, task.address, cpu)
        sp = start.registers["rsp"].value
        if cpu is not None and sp >> 63 and not any(stack.holds(sp) for stack in stacks):
            # Inside __switch_to_asm the CPU is on the next task's stack while `current` still names the last one.
            stacks += [stack for stack in self._all_task_stacks if stack.holds(sp)]
        walk = self._judged(task, stacks, start, most)
        if walk.end is WalkEnd.STOPPED and len(walk.frames) < most:
            walk.frames += self._beyond(task, stacks, walk.frames[-1].sp if walk.frames else sp, len(walk.frames))
        own = task_stack(self._linux, task.address)
        if walk.end is WalkEnd.FIRST_FRAME and own is not None and not task.is_kernel_thread:
            self._add_first_user_frame(walk, task_registers(self._linux, own))
        return walk

    def _judged(self, task: Task, stacks: Sequence[Stack], start: State, most: int = MAX_FRAMES) -> Walk:
        """A walk whose frames were held against each other."""
        returns = TrueReturns(self._linux, self.terrain.overlay.returns, task.address)
        walk = Walker(self.terrain, stacks, returns, task.pid == 0).walk(start, most)
        if len(walk.frames) < most:
            add_user(self._linux, walk, stacks)
        broke_off = walk.end is WalkEnd.STOPPED and not walk.is_missing and len(walk.frames) < most
        walk.frames = self.terrain.evidence.judge(walk.frames, stacks, broke_off)
        return walk

    def _beyond(self, task: Task, stacks: Sequence[Stack], sp: int, index: int) -> list[Frame]:
        """Guessed frames above the place where a walk stopped."""
        return self.scan_of(stacks, task).above(sp, index)

    def scan_of(self, stacks: Sequence[Stack], task: Task | None = None) -> Scan:
        """What looks over these stacks, and walks on for `task` where there is one."""

        def walk_on(state: State) -> Walk:
            return Walk() if task is None else self._judged(task, stacks, state)

        return Scan(self._code, self.terrain.evidence.calls, stacks, walk_on)

    def stacks(self, task: Task) -> list[Stack]:
        """The stacks of a task, and those of its CPU when it is running."""
        cpu, _ = self.running.get(task.address, (None, None))
        return stacks_of(self._linux, task.address, cpu)

    def text_on_stack(self, task: Task, everywhere: bool) -> StackTrace:
        """Every text address on a task's stacks: from its stack pointer up on the one that is on, or everywhere."""
        stacks, frames = self.stacks(task), self.trace(task).frames
        sp = frames[0].sp if frames else 0
        on = [stack for stack in stacks if stack.holds(sp)] or stacks
        scan = self.scan_of(stacks)
        found = [line for stack in (stacks if everywhere else on) for line in scan.text(stack, 0 if everywhere else sp)]
        numbered = tuple(replace(line, index=index) for index, line in enumerate(found))
        cpu, _ = self.running.get(task.address, (task.cpu, None))
        is_running = task.address in self.running
        return StackTrace(task.address, task.pid, task.comm, cpu, is_running, "scan", numbered, End.STOPPED, OnlyText())

    @functools.cached_property
    def _all_task_stacks(self) -> list[Stack]:
        """Read once: a snapshot may have thousands of CPUs that stand on no stack of theirs, and many false tasks."""
        stacks: list[Stack] = []
        try:
            for address in all_task_addresses(self._linux, Budget(MAX_TASKS)):
                stack = task_stack(self._linux, address)
                if stack is not None:
                    stacks.append(stack)
        except OrcdbgError:
            pass  # a task list that breaks off: the stacks before the break are the ones there are
        return stacks

    def _sleeping(self, task: Task) -> Walk:
        stack = task_stack(self._linux, task.address)
        if stack is None:
            return Walk(end_reason=StackGone())
        if not stack.holds(self._linux.member("task_struct", "thread.sp", task.address)):
            return Walk(end_reason=StackPointerElsewhere(stack.begin))
        start = sleeping_start(self._linux, task.address)
        problem = self._start_problem(start)
        if problem is not None and not self._code.is_text(start.ip):
            return Walk(self._beyond(task, [stack], start.registers["rsp"].value, 0), end_reason=problem)
        start.doubt = problem
        return self._walk(task, None, start)

    def _start_problem(self, start: State) -> Reason | None:
        """Why a sleeping task's saved ip cannot be where it was switched out, or None.

        It is a new task's first instruction, or it follows the call of __switch_to_asm.
        """
        if start.exact:
            return None
        switch = self._linux.find_address("__switch_to_asm")
        target = self._code.call_target(start.ip) if self._code.is_text(start.ip) else None
        if target is None and self._code.follows_call(start.ip) is None and self._code.is_text(start.ip):
            return None  # the text is not in the snapshot, and there is nothing to check against
        if switch is None or target == switch:
            return None
        return NotBehindSwitch(start.ip)

    def _add_first_user_frame(self, walk: Walk, address: int) -> None:
        """A new user task has no caller, but the registers it will begin with are at the top of its stack."""
        try:
            data = self._linux.memory.read(address, PT_REGS_SIZE)
        except MemoryFault:
            return  # the frames that were found stand without it
        registers = saved_registers(data, PT_REGS, f"pt_regs {address:#x}")
        if is_user(registers):
            slot = address + PT_REGS["rip"]
            ip = registers["rip"].value
            walk.frames.append(
                Frame(len(walk.frames), FrameKind.USER, StackKind.UNKNOWN, ip, True, None, registers, slot)
            )
            walk.end = WalkEnd.USER


def _end_of(task: Task, walk: Walk) -> End:
    """How a task's stack ends, where its walk ended."""
    if walk.end is WalkEnd.STOPPED:
        return End.STOPPED
    if walk.end is WalkEnd.USER:
        return End.USER
    if task.pid != 0:
        return End.KTHREAD

    # The first task has no loop to idle in before the boot is through.
    names = {frame.location.symbol for frame in walk.frames if frame.location}
    is_booting = "start_kernel" in names and not names & set(_IDLE_LOOPS)
    return End.BOOT if is_booting else End.IDLE
