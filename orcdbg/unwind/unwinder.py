"""What is the stack of this task, and how does it end?"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_memory_pieces
from orcdbg.base.reasons import Reason
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.stacks import Stack, task_stack, task_stack_size
from orcdbg.kernel.tasks import Task, panic_cpu, read_task
from orcdbg.snapshot.machine import CpuState
from orcdbg.unwind.frame import End, FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.reasons import (
    CpuNotSaved,
    CurrentDisagrees,
    MaybeSwitchingTo,
    NotBehindSwitch,
    OnlyText,
    StackGone,
    StackPointerElsewhere,
    StartUnreadable,
    SwitchingFrom,
    SwitchingTo,
    SysenterKeepsNothing,
)
from orcdbg.unwind.starts import (
    Running,
    inactive_frame,
    new_task_ip,
    on_cpus,
    running_start,
    sleeping_start,
    stacks_of,
    tasks_on_cpus,
)
from orcdbg.unwind.system_calls import REWOUND
from orcdbg.unwind.true_returns import TrueReturns
from orcdbg.unwind.walker import (
    MAX_FRAMES,
    SWITCH,
    State,
    Terrain,
    Walk,
    WalkEnd,
    Walker,
)

if TYPE_CHECKING:
    from orcdbg.unwind.batch.lockstep import Found, Lockstep, Sleeper
    from orcdbg.unwind.scan import Scan
    from orcdbg.unwind.switching import TaskStacks

# One question looks over so many words for guesses above broken walks: 512 whole stacks. A snapshot can be made of a hundred
# thousand false tasks, each of whose walks breaks off at once.
MAX_SCANNED = 1 << 20
_IDLE_LOOPS = ("do_idle", "cpu_startup_entry")
_SWITCHED_OUT = "inactive_task_frame"


@dataclass(frozen=True, slots=True)
class WalkStart:
    """Where the walk of a task begins.

    Attributes:
        source: what the registers were taken from, as `StackTrace.registers_from` has it.
        state: the innermost frame; None where there is none, and `why_none` says why.
        cpu: the CPU on whose stacks the task may be; None for one that sleeps, which is on its own.
        is_running: True where the CPU runs the task.
        sp: the stack pointer, above which guesses are looked for where the walk stops; None where it is not known.
    """

    source: str
    state: State | None = None
    why_none: Reason | None = None
    cpu: int | None = None
    is_running: bool = False
    sp: int | None = None


class Unwinder:
    """Walks tasks of one snapshot.

    Args:
        terrain: the kernel.
        cpus: the recorded CPUs that run it.
        missing: for CPUs by number, why their registers are not known, where more can be said than that.
    """

    def __init__(
        self, terrain: Terrain, cpus: Sequence[CpuState], missing: Mapping[int, Reason] = MappingProxyType({})
    ) -> None:
        self.terrain = terrain
        self._code = terrain.code
        self._linux = terrain.code.linux
        self._cpus = cpus
        self._missing = missing

    @property
    def running(self) -> Running:
        """Running tasks by address: CPU, and its recorded registers if there are any.

        A task is running where a CPU is on its stack: while a CPU goes over to another task, that is not `current`.
        """
        return self._on_cpus[0]

    @property
    def switching(self) -> Mapping[int, Reason]:
        """Tasks that a CPU was just switching from or to, each with the reason that says so."""
        return self._on_cpus[1]

    @functools.cached_property
    def _on_cpus(self) -> tuple[Running, Mapping[int, Reason]]:
        return on_cpus(self._linux, tasks_on_cpus(self._linux, self._cpus), self._other_owner)

    @functools.cached_property
    def _task_stacks(self) -> TaskStacks:
        from orcdbg.unwind.switching import TaskStacks  # few snapshots have a CPU between two tasks

        return TaskStacks(self._linux)

    def _owner_of(self, sp: int) -> int | None:
        return self._task_stacks.owner(sp)

    def _other_owner(self, current: int, sp: int, ip: int | None) -> int | None:
        """The task whose stack a stack pointer is on while `current` is another.

        The CPU's own stack pointer is believed. One that an exception has saved, at `ip`, is a word of memory, and only a
        CPU in a switch of tasks is on the next one's stack: so the walk from there must come to the switch.
        """
        owner = self._owner_of(sp)
        if owner is None or ip is None:
            return owner
        return (
            owner
            if self._is_in_switch(current, owner, State(ip, True, _given(ip, sp), FrameKind.INTERRUPT, None))
            else None
        )

    def _is_in_switch(self, outgoing: int, incoming: int, state: State) -> bool:
        """Whether a walk from a state on the incoming task's stack comes to the switch, below what that task had saved."""
        try:
            saved = self._linux.member("task_struct", "thread.sp", incoming) + inactive_frame(self._linux)[1]
            stack = task_stack(self._linux, incoming)
            if stack is None or not stack.begin <= state.registers["rsp"].value < saved <= stack.end:
                return False
            returns = self._returns_during_switch(incoming, outgoing)
            frames = Walker(self.terrain, [stack], returns).walk(state).frames
        except MemoryFault:
            return False
        return any(frame.cfa == saved and frame.location and frame.location.symbol in SWITCH for frame in frames)

    def trace(self, task: Task, budget: Budget | None = None) -> StackTrace:
        """The stack of a task; what cannot be read becomes the reason why the walk stopped.

        `budget` is the question's, in words of stacks that are looked over for guesses; see `Scan.above`.
        """
        start = self._start(task)
        try:
            stacks = stacks_of(self._linux, task.address, start.cpu)
            walk = self._judged(task, stacks, start.state) if start.state else Walk(end_reason=start.why_none)
            self._complete(walk, task, stacks, start, budget)
        except MemoryFault as error:
            walk = Walk(end_reason=StartUnreadable(str(error)))

        switching = self.switching.get(task.address)
        if walk.frames and isinstance(switching, SwitchingFrom | SwitchingTo):
            walk.frames[0] = replace(walk.frames[0], notes=(*walk.frames[0].notes, switching))
        return _trace_of(task, start, walk)

    def traces(self, tasks: Sequence[Task], budget: Budget | None = None) -> list[StackTrace]:
        """The stacks of many tasks: what `trace` says of each, at a small part of its price where tasks sleep.

        All share `budget`, or one of `MAX_SCANNED`.
        """
        if budget is None:
            budget = Budget(MAX_SCANNED)
        candidates = [task for task in tasks if self._may_share(task)]
        found: dict[int, Found] = {}
        for task, one in zip(candidates, self._lockstep.walk(self._sleepers(candidates)), strict=True):
            if one is not None:
                found[task.address] = one
        return [
            self._shared(task, found[task.address]) if task.address in found else self.trace(task, budget)
            for task in tasks
        ]

    @functools.cached_property
    def _lockstep(self) -> Lockstep:
        from orcdbg.unwind.batch.lockstep import Lockstep  # one stack needs none of it

        return Lockstep(self.terrain, *inactive_frame(self._linux), self._is_plain_start)

    def _may_share(self, task: Task) -> bool:
        """Whether a task sleeps, as far as its CPU tells, so that its walk may be like others'."""
        on_cpu = task.address in self.running or task.address in self.switching
        return bool(task.pid and task.stack) and not on_cpu

    def _is_plain_start(self, ip: int) -> bool:
        return (
            ip != new_task_ip(self._linux) and self._start_problem(State(ip, False, {}, FrameKind.CALL, None)) is None
        )

    def _sleepers(self, tasks: Sequence[Task]) -> list[Sleeper]:
        """Where the tasks' stacks are used; one whose stack pointer cannot be read is on no stack."""
        from orcdbg.unwind.batch.lockstep import Sleeper

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
        return StackTrace(
            task.address, task.pid, task.comm, task.cpu, False, _SWITCHED_OUT, found.frames, found.end, None
        )

    def from_state(self, task: Task, state: State, source: str, most: int = MAX_FRAMES) -> StackTrace:
        """The stack from registers that the user gave, over the stacks of `task` and its CPU, or its innermost frames.

        Where the stack pointer is on another task's stack, it is that task's: an emulated CPU comes to its next task.
        """
        sp = state.registers["rsp"].value
        task = self._owner(task, sp)
        cpu, _ = self.running.get(task.address, (task.cpu, None))
        start = WalkStart(source, state, cpu=cpu, sp=sp)
        stacks = stacks_of(self._linux, task.address, start.cpu)
        walk = self._judged(task, stacks, state, most)
        if len(walk.frames) < most or walk.end is WalkEnd.FIRST_FRAME:
            self._complete(walk, task, stacks, start)
        return _trace_of(task, start, walk)

    def _owner(self, task: Task, sp: int) -> Task:
        """The task on whose stack a stack pointer is, where it is on none of the stacks of `task`."""
        if not sp >> 63 or any(stack.begin <= sp <= stack.end for stack in self.stacks(task)):
            return task
        owner = self._owner_of(sp)
        try:
            return task if owner is None else read_task(self._linux, owner)
        except MemoryFault:
            return task

    def _start(self, task: Task) -> WalkStart:
        """The registers of the CPU that runs a task, or those that a task was switched out with."""
        if task.address not in self.running:
            return self._sleeping(task)
        cpu, note = self.running[task.address]
        if note is None:
            return WalkStart("none", why_none=self._missing.get(cpu, CpuNotSaved(cpu)), cpu=cpu, is_running=True)
        state = running_start(note)
        disagrees = self.switching.get(task.address)
        if isinstance(disagrees, CurrentDisagrees):
            state.doubt = disagrees
        return WalkStart(note.source, state, cpu=cpu, is_running=True, sp=state.registers["rsp"].value)

    def _sleeping(self, task: Task) -> WalkStart:
        try:
            stack = task_stack(self._linux, task.address)
            if stack is None:
                return WalkStart(_SWITCHED_OUT, why_none=StackGone())
            if not stack.holds(self._linux.member("task_struct", "thread.sp", task.address)):
                return WalkStart(_SWITCHED_OUT, why_none=StackPointerElsewhere(stack.begin))
            state = sleeping_start(self._linux, task.address)
        except MemoryFault as error:
            return WalkStart(_SWITCHED_OUT, why_none=StartUnreadable(str(error)))

        sp = state.registers["rsp"].value
        state.doubt = self._start_problem(state)
        switching = self.switching.get(task.address)
        if state.doubt is None and isinstance(switching, MaybeSwitchingTo | CurrentDisagrees):
            state.doubt = switching  # the CPU may have overwritten what the task had saved
        if state.doubt is not None and not self._code.is_text(state.ip):
            return WalkStart(_SWITCHED_OUT, why_none=state.doubt, sp=sp)
        return WalkStart(_SWITCHED_OUT, state, sp=sp)

    def _judged(self, task: Task, stacks: Sequence[Stack], start: State, most: int = MAX_FRAMES) -> Walk:
        """A walk whose frames were held against each other."""
        walk = Walker(self.terrain, stacks, self._returns_of(task), task.pid == 0).walk(start, most)
        if len(walk.frames) < most and walk.end is WalkEnd.STOPPED:
            from orcdbg.unwind.user_edge import add_user  # most walks come to their end

            add_user(self._linux, walk, stacks)
        if any(frame.location is not None and frame.location.symbol in REWOUND for frame in walk.frames[-2:]):
            from orcdbg.unwind.top_of_stack import end_at_zeros

            end_at_zeros(self._linux, walk, task.address)
        broke_off = walk.end is WalkEnd.STOPPED and not walk.is_missing and len(walk.frames) < most
        walk.frames = self.terrain.evidence.judge(walk.frames, stacks, broke_off)
        if walk.frames and walk.frames[-1].kind is FrameKind.USER and walk.frames[-1].ip == 0:
            from orcdbg.unwind.top_of_stack import fill_in_sysenter

            fill_in_sysenter(self._linux, walk, task.address)
        return walk

    def _returns_of(self, task: Task) -> TrueReturns:
        switching = self.switching.get(task.address)
        if isinstance(switching, SwitchingTo):
            return self._returns_during_switch(task.address, switching.outgoing)
        return TrueReturns(self._linux, self.terrain.overlay.returns, task.address)

    def _returns_during_switch(self, incoming: int, outgoing: int) -> TrueReturns:
        from orcdbg.unwind.switching import ReturnsDuringSwitch

        own, others = (TrueReturns(self._linux, self.terrain.overlay.returns, task) for task in (incoming, outgoing))
        return ReturnsDuringSwitch(own, others)

    def _complete(
        self, walk: Walk, task: Task, stacks: Sequence[Stack], start: WalkStart, budget: Budget | None = None
    ) -> None:
        """Adds what a walk did not come to: guesses above the place where it stopped, or a new task's user registers."""
        is_whole = isinstance(walk.end_reason, SysenterKeepsNothing)
        if walk.end is WalkEnd.STOPPED and start.sp is not None and not is_whole:
            sp = walk.frames[-1].sp if walk.frames else start.sp
            walk.frames += self.scan_of(stacks, task).above(sp, len(walk.frames), budget or Budget(MAX_SCANNED))

        own = task_stack(self._linux, task.address)
        if own is None or task.is_kernel_thread or walk.end is WalkEnd.USER:
            return

        from orcdbg.unwind.top_of_stack import add_first_user, add_last_user

        if walk.end is WalkEnd.FIRST_FRAME:
            add_first_user(self._linux, walk, own)
        elif isinstance(walk.end_reason, CpuNotSaved) and walk.end_reason.cpu == panic_cpu(self._linux):
            add_last_user(self._linux, walk, own)

    def scan_of(self, stacks: Sequence[Stack], task: Task | None = None) -> Scan:
        """What looks over these stacks, and walks on for `task` where there is one."""

        from orcdbg.unwind.scan import Scan  # most walks come to their end

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


def _given(ip: int, sp: int) -> dict[str, RegisterValue]:
    """The two registers that a walk needs."""
    return {"rip": RegisterValue(ip, "saved by an exception"), "rsp": RegisterValue(sp, "saved by an exception")}


def _trace_of(task: Task, start: WalkStart, walk: Walk) -> StackTrace:
    """What came of a walk, with whose it is."""
    cpu = task.cpu if start.cpu is None else start.cpu
    return StackTrace(
        task=task.address,
        pid=task.pid,
        comm=task.comm,
        cpu=cpu,
        running=start.is_running,
        registers_from=start.source,
        frames=tuple(walk.frames),
        end=_end_of(task, walk),
        end_reason=walk.end_reason,
    )


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
