"""Is what a walk shows at any stop of a busy guest true? Asked of the guest itself, which goes on from there.

A guest is stopped at random: at any time, or at any instruction of a function that was seen to run. From there three things
tell the truth. It is stepped, and each call and return changes the callers by one frame (`Followed`). It runs on, and each
predicted return comes, at the predicted stack pointer, the inner before the outer. A task that has not run since the last
stop has the stack that it had.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from orcdbg.base.errors import OrcdbgError
from orcdbg.kernel.stacks import StackKind
from orcdbg.kernel.tasks import current_task, read_task
from orcdbg.snapshot.machine import CpuState
from orcdbg.unwind.frame import End, Frame, FrameKind, StackTrace
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.views.reasons import words_or_none
from orcdbg.x86.instructions import Instruction, decode_one, outline
from tests.lab.campaign_loads import Load
from tests.lab.damage import Damager, damage_words, places
from tests.lab.gdbstub import WAITING, WaitsForInterrupt
from tests.lab.guest import Guest
from tests.lab.live import LiveKernel, cpu_state
from tests.lab.shadow import LOOP_BYTES, Place, Shadow, Values, read_words, user_place
from tests.lab.tallies import Tally

LONGEST = 0.4  # seconds that a guest runs before it is stopped
WAIT = 1.5  # seconds for predicted returns
STRAYS = 40  # hits of a breakpoint by other tasks, or deeper calls, before a return is waited for no more
AWAITED = 4  # returns that are waited for at once
STEPS = 150  # instructions that are followed from one stop
UNDISTURBED = 2  # times that a guest is let run before the monitor gets the next command
AIMED = 0.4  # of the stops of a load that is about some code
SLEEPERS = 6  # sleeping tasks that are looked at from one stop
DAMAGED = 6  # words that are damaged at one stop
KNOWN_FUNCTIONS = 400
CALL_SIZE = 5  # of a direct one
HALT, MWAIT = WAITING
DEAD = "play_dead"  # in the names of what a CPU runs that is taken off line
FTRACE_RETURNS = (5, 9)  # of a function: behind the call with which it begins, or behind an ENDBR and that
# Where the CPU goes over to another task, and where entry code moves its own return address.
ENDS_FOLLOWING = ("__switch_to_asm", "error_entry", "paranoid_entry", "paranoid_exit", "sync_regs", "fixup_bad_iret")


@dataclass
class StoppedGuest(LiveKernel):
    """A stopped guest with several CPUs; `trace` is about the one that stopped it."""

    cpus: int = 1

    def states(self) -> list[CpuState]:
        """The registers of all CPUs."""
        own = self.stub.read_registers()
        if self.cpus == 1:
            return [cpu_state(own)]
        states = [cpu_state(self.stub.read_registers_of(cpu), cpu) for cpu in range(self.cpus)]
        self.stub.read_registers()  # steps are the stopped CPU's again
        return states

    def unwinder(self) -> Unwinder:
        """What walks the stacks of all CPUs."""
        self.session.memory.forget()
        return Unwinder(self.session.kernel.terrain, self.states())

    def trace(self) -> StackTrace:
        """The stack of what runs on the CPU that stopped the guest."""
        unwinder, cpu = self.unwinder(), self.stub.stopped_cpu
        task = next(address for address, (number, _) in unwinder.running.items() if number == cpu)
        return unwinder.trace(read_task(self.session.linux, task))


class Followed(Shadow):
    """A CPU that is stepped from anywhere, and returns into what its first walk had shown."""

    def __init__(self, live: LiveKernel, first: StackTrace) -> None:
        self.promised: Place | None = None
        super().__init__(live, [(frame.ip, frame.sp) for frame in self._callers(first)])
        self._skipped = skipped(first)
        self._saved_at = {
            (frame.ip, frame.sp): frame.came_from
            for frame in first.frames
            if frame.kind is FrameKind.INTERRUPT and frame.came_from is not None
        }
        self.returned = 0
        self.entered = 0
        self._user = self._user_now()  # as the registers at the top of the stack have it
        self.judged = self.true_in_doubt = 0
        self.is_over = False

    def _callers(self, trace: StackTrace) -> Sequence[Frame]:
        """Without functions that a `ret` is about to enter, which nobody called yet: whether the next one does is seen.

        A retpoline's is one, and where a task that never ran will begin when the switch to it is over.
        """
        callers = trace.frames[1:]
        is_promised = len(callers) > 0 and is_entered_later(callers[0])
        self.promised = (callers[0].ip, callers[0].sp) if is_promised else None
        return [frame for frame in callers if not is_entered_later(frame)]

    def judge(self) -> None:
        """As ever; where user mode and interrupted code go on may have been changed by what the kernel did meanwhile."""
        now = self._user_now()
        if now is not None:
            if self._user not in (None, now):
                self.known[-1] = now
            self._user = now
        self._look_where_interrupted_code_goes_on()
        super().judge()

    def _user_now(self) -> Place | None:
        here = self._live.stub.read_registers()["rip"]
        if not self.known or self.known[-1][1] >> 63 or here in self.entry_text:
            return None
        now = user_place(self._live, self._live.stub.stopped_cpu)
        return now if now[0] else None  # sysenter's ip is filled in a little later

    def _look_where_interrupted_code_goes_on(self) -> None:
        """The handler of a probe's int3 sets the ip that will be returned to: behind the instruction, or to a copy of it."""
        for number, place in enumerate(self.known):
            slot = self._saved_at.get(place)
            if slot is None:
                continue
            (ip,) = read_words(self._live, slot, 1)
            self.known[number] = ip, place[1]
            self._saved_at[ip, place[1]] = slot

    def _follow(self, insn: Instruction, before: Values, after: Values) -> None:
        if self.promised is not None and insn.mnemonic.startswith("ret"):
            entered = after["rip"], after["rsp"]
            assert entered == self.promised, ("a `ret` should have entered", self.promised, "and went to", entered)
            self.promised = None
            self.entered += 1
        super()._follow(insn, before, after)
        ip, sp = after["rip"], after["rsp"]
        self._drop_dead_calls(ip, sp)
        is_dropped = len(self.known) > 1 and self.known[0] in self._skipped and sp >= self.known[0][1]
        if not self._made and is_dropped and (ip, sp) != self.known[0]:
            self.known.pop(0)  # its return address was taken off the stack, which now has that of its caller on top
        if not self._made and self.known and (ip, sp) == self.known[0]:
            self.known.pop(0)
            self.returned += 1
            self.is_left = False
        place = self._live.session.names.at(ip)
        is_end = place is not None and place.symbol in ENDS_FOLLOWING
        self.is_over = self.is_left or not self.known or after["cs"] & 3 == 3 or is_end

    def _drop_dead_calls(self, ip: int, sp: int) -> None:
        """Forgets calls whose return address the stack pointer has gone past: thunks drop some with `lea 8(%rsp)`."""
        if ip in self.entry_text:
            return
        while self._made and (slot := self._made[-1].slot) is not None and slot < sp < slot + 0x100:
            self._made.pop()


class Stops:
    """Stops one guest again and again.

    Args:
        live: the guest.
        random: chooses where it is stopped, and what is asked there.
        tally: counts.
        load: what the guest does.
        guest: takes commands of the load.
    """

    def __init__(self, live: StoppedGuest, random: Random, tally: Tally, load: Load, guest: Guest) -> None:
        self._live = live
        self._random = random
        self._tally = tally
        self._load = load
        self._undisturbed = 0
        self._is_in_exception = False
        self._guest = guest
        self._functions: list[tuple[int, int]] = []
        self._asleep: dict[int, tuple[object, list[tuple[int, int]]]] = {}

    def run(self, until: float) -> None:
        """Stops, looks and asks until it is time."""
        while time.monotonic() < until:
            kind = self._stop()
            self._tally.kinds[kind] += 1
            first = self._look()
            if first is None:
                continue
            if self._random.random() < 0.3:
                self._look_at_sleepers()
            if self._random.random() < 0.5:
                self._damage()
            if self._is_clean(first):
                (self._follow if self._random.random() < 0.5 else self._wait_for_returns)(first)

    @staticmethod
    def _is_clean(trace: StackTrace) -> bool:
        return trace.end is not End.STOPPED and all(frame.mark.is_sure for frame in trace.frames)

    # Stopping

    def _stop(self) -> str:
        """Runs the guest for a while; says how it was stopped."""
        aims = self._aims() if self._random.random() < AIMED else []
        if aims:
            return "in what the load is about" if self._stop_in(aims) else "what the load is about was not come to"
        if len(self._functions) < 8 or self._random.random() < 0.3:
            self._resume(LONGEST * self._random.random())
            return "at any time"
        return "at an instruction" if self._stop_in(self._functions) else "no instruction was come to"

    def _stop_in(self, functions: Sequence[tuple[int, int]]) -> bool:
        """Runs the guest to one of a few random instructions of these functions; says whether it came there."""
        stub = self._live.stub
        chosen = [self._random.choice(functions) for _ in range(4)]
        addresses = {
            address for address in (self._instruction(*function) for function in chosen) if address is not None
        }
        for address in addresses:
            stub.set_breakpoint(address)
        is_hit = self._resume(LONGEST)
        for address in addresses:
            stub.clear_breakpoint(address)
        return is_hit

    def _aims(self) -> list[tuple[int, int]]:
        """Start and size of the functions that the load is about, those that the kernel made too."""
        session = self._live.session
        starts = [start for name in self._load.aims for start in session.names.starts_of(name)]
        places = [place for start in starts if (place := session.names.at(start)) is not None]
        made = [(code.start, code.end - code.start) for code in session.names.made.all] if self._load.aims else []
        return [(place.start, place.size) for place in places if place.size] + made

    def _resume(self, seconds: float) -> bool:
        self._undisturbed += 1
        if self._load.commands and self._undisturbed > UNDISTURBED and not self._is_in_exception:
            self._undisturbed = 0
            self._guest.qmp("human-monitor-command", **{"command-line": self._random.choice(self._load.commands)})
        is_hit = self._live.stub.resume(seconds)
        self._live.session.memory.forget()
        if self._load.changes:
            self._live.session.move(self._live.session.snapshot)
        return is_hit

    def _instruction(self, start: int, size: int) -> int | None:
        """A random instruction of a function."""
        try:
            code = self._live.session.memory.read(start, min(size, 4096))
        except OrcdbgError:
            return None
        return self._random.choice([address for address, *_ in outline(code, start)] or [start])

    # Looking

    def _look(self) -> StackTrace | None:
        """Walks what every CPU runs; the trace of the CPU that stopped, None where that is in user mode."""
        unwinder = self._live.unwinder()
        own = None
        for address, (cpu, _) in unwinder.running.items():
            trace = unwinder.trace(read_task(self._live.session.linux, address))
            self._count(trace)
            self._learn(trace)
            if cpu == self._live.stub.stopped_cpu:
                own = trace
        self._tally.stops += 1
        kinds = {frame.stack for frame in own.frames} if own is not None else set[StackKind]()
        self._is_in_exception = bool(kinds & {StackKind.MCE, StackKind.NMI})
        return own if own is not None and len(own.frames) > 1 else None

    def _count(self, trace: StackTrace) -> None:
        tally = self._tally
        tally.walks += 1
        tally.frames += len(trace.frames)
        tally.sure += sum(frame.mark.is_sure for frame in trace.frames)
        reason = trace.end_reason if trace.end is End.STOPPED else None
        reason = reason or next((frame.doubt for frame in trace.frames if frame.doubt), None)
        if reason is not None:
            where = trace.frames[0].location if trace.frames else None
            tally.doubts[f"{type(reason).__name__} in {where.symbol if where else 'code without a name'}"] += 1

    def _learn(self, trace: StackTrace) -> None:
        for frame in trace.frames:
            if frame.location is not None and frame.location.is_text and frame.location.size:
                self._functions.append((frame.location.start, frame.location.size))
        del self._functions[:-KNOWN_FUNCTIONS]

    def _look_at_sleepers(self) -> None:
        """Some tasks that sleep: one that has not run since it was looked at last has the same stack."""
        session = self._live.session
        unwinder = self._live.unwinder()
        tasks = [task for task in session.kernel.task_list[0] if task.address not in unwinder.running]
        if not self._load.changes:
            del session.kernel.task_list  # it is read anew at the next stop
        for task in self._random.sample(tasks, min(SLEEPERS, len(tasks))):
            counts = self._switches(task.address)
            trace = unwinder.trace(task)
            self._count(trace)
            before = self._asleep.get(task.address)
            self._asleep[task.address] = counts, places(trace)
            if before is None or before[0] != counts or task.address in unwinder.switching:
                continue
            assert before[1] == places(trace), (task, before[1], shown(self._live, trace))
            self._tally.asleep += 1

    def _switches(self, task: int) -> object:
        """What is different as soon as a task has run; a task_struct that was given to another task has another pid."""
        names = ("pid", "nvcsw", "nivcsw", "thread.sp", "se.sum_exec_runtime")
        return tuple(self._live.session.linux.member("task_struct", name, task) for name in names)

    def _damage(self) -> None:
        """Damages words that the walks of the CPUs stand on."""
        unwinder = self._live.unwinder()
        damager = Damager(self._live.session.kernel, self._live.states(), self._random)
        tasks = [*unwinder.running, *self._random.sample(sorted(self._asleep), min(2, len(self._asleep)))]
        found = [damager.undamaged(task) for task in tasks]
        walks = [walk for walk in found if walk is not None and len(walk.trace.frames) > 1]
        if walks:
            self._tally.damage.add(damage_words(damager, walks, DAMAGED))

    # Asking

    def _follow(self, first: StackTrace) -> None:
        """Steps on, and judges the walk at each instruction."""
        if len(first.frames) < 2 or first.frames[0].kind is FrameKind.USER:
            return
        place = first.frames[0].location
        if place is not None and place.symbol in ENDS_FOLLOWING:
            return
        if self._is_halted():
            return
        followed = Followed(self._live, first)
        for _ in range(self._random.randrange(STEPS)):
            try:
                followed.step()
            except WaitsForInterrupt:
                break
            if followed.is_over:
                self._tally.to_user += followed.is_left
                break
            followed.judge()
        self._tally.stops += followed.stops
        self._tally.walks += followed.stops
        self._tally.frames += followed.frames
        self._tally.sure += followed.sure
        self._tally.judged += followed.frames
        self._tally.true_in_doubt += followed.frames - followed.sure
        self._tally.returned += followed.returned
        for text in followed.unsure:
            self._tally.doubts[text.partition(": ")[2]] += 1

    def _is_halted(self) -> bool:
        """Whether the CPU waits for an interrupt: a step lets none in."""
        ip = self._live.stub.read_registers()["rip"]
        try:
            before = self._live.session.memory.read(ip - 3, 3)
        except OrcdbgError:
            return False
        return before.endswith(HALT) or before == MWAIT

    def _wait_for_returns(self, first: StackTrace) -> None:
        """Lets the guest run to predicted returns, which come in their order."""
        stub, linux = self._live.stub, self._live.session.linux
        own = self._identity(first.task)
        if any(frame.location is not None and DEAD in frame.location.symbol for frame in first.frames):
            return  # the CPU will begin anew, at the same places of the same stack
        no_returns = skipped(first) | self._tricks(first)
        frames = [frame for frame in first.frames[1:9] if frame.kind is FrameKind.CALL and not frame.exact]
        predicted = [frame for frame in frames if (frame.ip, frame.sp) not in no_returns]
        chosen = sorted(self._random.sample(predicted, min(AWAITED, len(predicted))), key=lambda frame: frame.index)
        if not chosen:
            return
        waiting = [(frame.ip, frame.sp) for frame in chosen]
        addresses = {ip for ip, _ in waiting}
        for address in addresses:
            stub.set_breakpoint(address)
        self._tally.waited += len(waiting)
        deadline, strays = time.monotonic() + WAIT, 0
        try:
            while waiting and strays < STRAYS and time.monotonic() < deadline:
                if not self._resume(max(deadline - time.monotonic(), 0.05)):
                    break
                registers = stub.read_registers()
                ip, sp = registers["rip"], registers["rsp"]
                cpu = stub.stopped_cpu
                if (ip, sp) in waiting and current_task(linux, cpu) == first.task and self._identity(first.task) == own:
                    assert waiting[0] == (ip, sp), ("an outer return came first", waiting, shown(self._live, first))
                    waiting.pop(0)
                    self._tally.seen += 1
                else:
                    strays += 1
                stub.skip_breakpoint(ip)
        except WaitsForInterrupt:
            pass
        finally:
            for address in addresses:
                stub.clear_breakpoint(address)

    def _tricks(self, trace: StackTrace) -> set[Place]:
        """The frames of thunks whose call only fills the return stack buffer, and whose return address is dropped."""
        found = set[Place]()
        for frame in trace.frames:
            if frame.kind is not FrameKind.CALL:
                continue
            try:
                code = self._live.session.memory.read(frame.ip - CALL_SIZE, CALL_SIZE)
            except OrcdbgError:
                continue
            call = decode_one(code, frame.ip - CALL_SIZE)
            if call is not None and call.target is not None and abs(call.target - frame.ip) < LOOP_BYTES:
                found.add((frame.ip, frame.sp))
        return found

    def _identity(self, task: int) -> object:
        linux = self._live.session.linux
        return tuple(linux.member("task_struct", name, task) for name in ("pid", "start_time"))


def is_entered_later(frame: Frame) -> bool:
    """Whether a frame is where a `ret` will begin a function, and no caller that waits for one to come back."""
    return frame.kind is FrameKind.CALL and frame.exact


def skipped(trace: StackTrace) -> set[Place]:
    """The frames behind a function's call of ftrace, which may never be returned to: BPF runs the function by itself."""
    return {
        (frame.ip, frame.sp)
        for frame in trace.frames
        if frame.location is not None and frame.ip - frame.location.start in FTRACE_RETURNS
    }


def shown(live: LiveKernel, trace: StackTrace) -> list[str]:
    """A trace in short, for messages."""
    names = live.session.names.describe
    return [f"{names(f.ip)} sp {f.sp:x} {f.mark.value} {words_or_none(f.doubt) or ''}" for f in trace.frames]
