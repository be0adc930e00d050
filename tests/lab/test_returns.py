"""Stacks through replaced return addresses and through code that the kernel made, in real kernels under probes and tracers.

One guest a kernel: a snapshot of tasks that sleep below probes and function_graph, compared with the guest's own unwinder
and with what the same programs' stacks were before; then functions are stepped through from entry to return.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import orcdbg
from orcdbg.kernel.ret_stack import Tracer
from orcdbg.kernel.stacks import StackKind, task_stack
from orcdbg.orc.effective import Source
from orcdbg.target.session import Session
from orcdbg.unwind.frame import End, Mark, StackTrace
from tests.lab import scripts, traced
from tests.lab.bpf_program import CALLED, NAME, filter_program
from tests.lab.conftest import KERNELS
from tests.lab.deaths import note_death
from tests.lab.fetch import Kernel, ensure, locked
from tests.lab.gdbstub import StubError, WaitsForInterrupt
from tests.lab.guest import Guest, GuestError, Machine
from tests.lab.live import LiveKernel, open_live
from tests.lab.proc_stacks import as_proc_prints, blocked_tasks
from tests.lab.scenes import BOOT_SECONDS, write_initrd
from tests.lab.skips import skipped_if_unavailable
from tests.lab.stepping import Caller, callers

pytestmark = pytest.mark.lab

FUNCTIONS, STEPS, SECONDS = 5, 6000, 25.0
EVERY = 11  # stops in code of no interest that are judged: one of so many
WAIT = 3.0
PROGRAM_ATTEMPTS = 5
BOOT_ATTEMPTS = 3
DIES_AT_ONCE = "panic=-1 oops=panic"  # an oops reboots, which ends QEMU
# What a guest prints, or QEMU, when the emulator ran it wrongly: seen with 6.12 under function_graph.
DEATHS = (
    "Kernel panic",
    "Oops:",
    "double fault",
    "BUG: ",
    "general protection fault",
    "QEMU ended",
    "the machine has ended",
    "of no more use",
    "does not step",
)
_GENERATED = ("__builtin__ftrace", "__builtin__kprobes", "bpf")


def known_chains(before: dict[int, scripts.Trace]) -> dict[str, set[tuple[str, ...]]]:
    """What the guest printed before anything was traced, by the name of the task."""
    chains = defaultdict(set)
    for trace in before.values():
        chains[trace.comm].add(trace.frames)
    return chains


def check_against_guest(session: Session, console: str) -> int:
    """Compares every blocked task that stood still, and returns how many frames of theirs were recovered."""
    before, *rounds = scripts.parse_rounds(console)
    still, _ = scripts.still_and_moved(rounds, scripts.stays_while_idle)
    chains, recovered = known_chains(before), 0
    lost = [session.names.describe(start, False) for start in session.overlay.returns.by_start]
    tasks = blocked_tasks(session, {tid: list(trace.frames) for tid, trace in still.items()})
    assert len(tasks) > 40
    for task in tasks:
        trace, theirs = session.unwinder.trace(task), list(still[task.pid].frames)
        mine = as_proc_prints(session, trace)
        check_marks(session, trace)
        recovered += sum(frame.recovered is not None for frame in trace.frames)
        at = next((number for number, frame in enumerate(theirs) if frame in lost), None)
        if at is None:
            assert mine == theirs, task
            continue
        # The kernel gives up at its own trampoline, before 5.11 at that of kretprobes, later where one is over that of
        # function_graph. The rest is what the same program's stack was before.
        assert mine[:at] == theirs[:at], task
        assert any(mine[at:] == list(chain[-len(mine[at:]) :]) for chain in chains[task.comm]), (task, mine)
    return recovered


def check_marks(session: Session, trace: StackTrace) -> None:
    """Every frame is sure; those and only those are marked whose return address was replaced, by a trampoline with a name."""
    trampolines = session.overlay.returns.by_start
    assert trace.end in (End.USER, End.KTHREAD, End.IDLE), (trace, trace.end_reason)
    for frame in trace.frames:
        assert frame.mark == (Mark.AS_BUILT if frame.recovered is None else Mark.CHANGED), (trace.pid, frame)
        if frame.recovered is not None:
            # No fprobe is in the plan, so what rethook has on a stack is a kretprobe's.
            by = trampolines[frame.recovered.trampoline].by
            assert frame.recovered.by == {Tracer.RETHOOK: Tracer.KRETPROBE}.get(by, by), frame
            assert frame.recovered.callee is not None, (trace.pid, frame)  # the record names what was to return


def hunt(live: LiveKernel, places: list[int], seconds: float) -> int | None:
    """Runs the guest to one of at most four places, and says to which; None where it came to none in time."""
    for address in places:
        live.stub.set_breakpoint(address)
    is_hit = live.stub.resume(seconds)
    for address in places:
        live.stub.clear_breakpoint(address)
    ip = live.stub.read_registers()["rip"]
    return ip if is_hit and ip in places else None


def loaded_programs(live: LiveKernel) -> list[int]:
    """Where the guest's BPF programs begin; lets it run until it has loaded one."""
    for _ in range(PROGRAM_ATTEMPTS):
        live.session.move(live.session.snapshot)
        found = [one.start for one in live.session.names.made.all if one.name.startswith("bpf_prog_")]
        if found:
            return found[:4]
        live.stub.resume(WAIT)
    return []


def entries(live: LiveKernel, names: list[str], random: Random) -> Iterator[int]:
    """Stops the guest at the entry of a BPF program, and of one probed function after another, each twice at most."""
    program = hunt(live, loaded_programs(live), PROGRAM_ATTEMPTS * WAIT)
    if program is None:
        raise GuestError("no BPF program runs")
    yield program
    left = [address for name in names if (address := live.session.linux.find_address(name)) is not None] * 2
    random.shuffle(left)
    while left:
        ip = hunt(live, list(dict.fromkeys(left))[:4], WAIT)
        if ip is None:
            left = left[4:]
            continue
        left.remove(ip)
        yield ip


def check_classic_filter(live: LiveKernel) -> None:
    """A classic socket filter is on no list: what is found through it is a guess, and here a right one, at every stop."""
    called = live.session.linux.find_address(CALLED)
    assert called is not None
    if hunt(live, [called], PROGRAM_ATTEMPTS * WAIT) is None:
        raise GuestError("no classic filter runs")
    first = live.trace()
    filter_frame, *others = first.frames[1:]
    assert (filter_frame.location, filter_frame.source, filter_frame.mark) == (None, Source.FRAME_POINTER, Mark.GUESS)
    known = [(frame.ip, frame.sp) for frame in others]
    was_inside = False
    for _ in range(STEPS):
        live.stub.step()
        registers = live.stub.read_registers()
        if (registers["rip"], registers["rsp"]) == known[0]:
            break
        if live.session.names.at(registers["rip"]) is not None:
            continue
        trace = live.trace()
        guessed = trace.frames[1:]
        was_inside = was_inside or [(frame.ip, frame.sp) for frame in guessed] == known
        assert not any(frame.mark.is_sure for frame in guessed), shown(live, trace)
    else:
        raise AssertionError("the filter does not return to its caller")
    assert was_inside
    assert [(frame.ip, frame.sp) for frame in live.trace().frames] == known, shown(live, first)


def is_interesting(live: LiveKernel, ip: int, entry: int) -> bool:
    """True in the function itself, in return trampolines, and in code that the kernel made."""
    session = live.session
    if session.overlay.returns.at(ip) is not None or not session.is_image_text(ip):
        return True
    place = session.names.at(ip)
    return place is not None and (place.start == entry or place.symbol.startswith("ftrace_"))


class Follower:
    """Steps through one function, and counts stops, stops in code of interest, and those without callers."""

    def __init__(self, live: LiveKernel, entry: int) -> None:
        self.live = live
        self.entry = entry
        self.first = live.trace()
        self.known, self.sp = callers(self.first), self.first.frames[0].sp
        stack = task_stack(live.session.linux, self.first.task)
        assert stack is not None
        self.stack = stack
        self.judged = 0
        self.inside: dict[str, int] = defaultdict(int)
        self.unknown: list[str] = []

    def follow(self, deadline: float) -> None:
        """Until the function has returned, sleeps, or time is up."""
        if self.first.end == End.STOPPED or any(frame.doubt for frame in self.first.frames):
            self.unknown.append(f"at the entry: {self.first.end_reason}")
            return
        for step in range(STEPS):
            try:
                self.live.stub.step()
            except WaitsForInterrupt:
                return
            registers = self.live.stub.read_registers()
            ip, sp = registers["rip"], registers["rsp"]
            if (ip, sp) == self.known[0] or time.monotonic() > deadline:
                return
            interesting = is_interesting(self.live, ip, self.entry)
            if (interesting or step % EVERY == 0) and not self._judge(interesting):
                return

    def _judge(self, interesting: bool) -> bool:
        """Judges one stop; False once another task runs."""
        trace = self.live.trace()
        sp = trace.frames[0].sp
        # Inside __switch_to_asm the CPU is on the next task's stack already, while `current` still names the last one.
        if trace.task != self.first.task or (
            trace.frames[0].stack == StackKind.TASK and not self.stack.begin <= sp <= self.sp + 8
        ):
            return False
        self.judged += 1
        where = self.live.session.names.describe(trace.frames[0].ip) or "code on no list"
        if interesting:
            self.inside[where.partition("+")[0]] += 1
        assert self._contradictions(trace) == [], (where, self.first.frames[0].location, shown(self.live, trace))
        if callers(trace)[-len(self.known) :] != self.known:
            doubts = [frame.doubt for frame in trace.frames if frame.doubt]
            assert trace.end == End.STOPPED or doubts, (where, shown(self.live, trace))
            self.unknown.append(f"{where}: {trace.end_reason or doubts[0]}")
        return True

    def _contradictions(self, trace: StackTrace) -> list[Caller]:
        """Frames shown as sure, outside the function, that are none of its callers."""
        sure = [
            f
            for f in trace.frames[1:]
            if f.reliable and not f.doubt and f.sp >= self.sp + 8 and f.stack == StackKind.TASK
        ]
        return [(frame.ip, frame.sp) for frame in sure if (frame.ip, frame.sp) not in self.known]


def shown(live: LiveKernel, trace: StackTrace) -> list[str]:
    """A trace in short, for messages."""
    return [f"{live.session.names.describe(f.ip)} sp {f.sp:x} {f.mark} {f.source} {f.rule}" for f in trace.frames]


def step_through(live: LiveKernel, names: list[str], random: Random) -> tuple[int, dict[str, int], list[str]]:
    """Follows some of the probed functions: stops that were judged, those in code of interest by name, and those lost."""
    judged, inside, unknown = 0, defaultdict[str, int](int), list[str]()
    deadline = time.monotonic() + SECONDS
    for number, entry in enumerate(entries(live, names, random)):
        follower = Follower(live, entry)
        follower.follow(deadline)
        judged, unknown = judged + follower.judged, unknown + follower.unknown
        for name, count in follower.inside.items():
            inside[name] += count
        if number + 1 == FUNCTIONS or time.monotonic() > deadline:
            break
    return judged, inside, unknown


def run_guest(kernel: Kernel, random: Random, plan: traced.Plan, home: Path) -> None:
    """One boot: the snapshot, then the stepping."""
    files = {f"bin/{NAME}": filter_program()}
    initrd = write_initrd(home, kernel, traced.write_traced(random, plan), random, files)
    with Guest(Machine(kernel.vmlinuz, initrd, DIES_AT_ONCE), home / "serial.log") as guest:
        guest.wait_for(scripts.READY, BOOT_SECONDS)
        time.sleep(0.3)
        guest.dump(home / "core")
        guest.resume()
        console = guest.wait_for(traced.STEPPED, BOOT_SECONDS)
        session = orcdbg.open(kernel.vmlinux, home / "core")
        recovered = check_against_guest(session, console)
        assert recovered > 5, "no task slept below a probe"
        with guest.stub() as stub:
            live = open_live(stub, kernel.vmlinux, scripts.parse_symbols(console)["_text"])
            check_classic_filter(live)
            judged, inside, unknown = step_through(live, plan.functions, random)
    print(f"{kernel.name}: {recovered} recovered frames; {plan}")
    print(
        f"{kernel.name}: {judged} stops judged, inside {dict(inside)}, {len(unknown)} lost: {sorted(set(unknown))[:12]}"
    )
    assert sum(count for name, count in inside.items() if name.startswith("bpf_prog_")) > 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_true_callers_are_shown_under_probes_and_tracers(kernel: str, seed: int, tmp_path: Path) -> None:
    """No frame that is shown as sure is wrong; asleep nothing is missing either."""
    random = Random(f"{kernel} returns {seed}")
    with skipped_if_unavailable(kernel):
        found = ensure(kernel)
    deaths = []
    with locked("guest"):
        for _ in range(BOOT_ATTEMPTS):
            try:
                return run_guest(found, random, traced.choose(random), tmp_path)
            except (GuestError, StubError, TimeoutError) as error:
                death = how_it_died(error, tmp_path / "serial.log")
                if death is None:
                    raise
                deaths.append(death)
                note_death(f"{kernel} traced, now with another plan", death)
    pytest.skip(f"{kernel}: the guest died under each of {BOOT_ATTEMPTS} plans: {deaths}")


def how_it_died(error: Exception, serial: Path) -> str | None:
    """The line that tells the death of a guest, None where an error is none."""
    if isinstance(error, TimeoutError):
        return "QEMU's monitor does not answer"
    said = [*(serial.read_text("utf-8", "replace").splitlines() if serial.exists() else []), str(error)]
    return next((line for line in said if any(word in line for word in DEATHS)), None)
