"""Do walks over damaged stacks show a wrong frame as a sure one?

`python -m tests.damage --copies 10000 --seed 7 [VMLINUX SNAPSHOT]` walks so many copies of the stacks of a snapshot (the
bundled sample's without), in each of which some bytes of one task's stacks are changed or a page is missing. A frame
without a mark that the whole stack does not have is a failure, and so is an exception or one of over a second of CPU.

What nobody can tell is counted apart, by these rules and no others. A return address was itself changed, the frame is at
the same place on the stack, and the new address is in the same function, behind another call that may lead to the
frame below; or in a function that calls the frame below directly, as the true one did. Interrupted registers were
themselves changed: their ip to another instruction of the same function, or the last bits of their stack pointer.
The values of registers, the user's among them, are data and no frames.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import orcdbg
from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE
from orcdbg.cli.main import sample_files
from orcdbg.kernel.stacks import Stack
from orcdbg.kernel.tasks import Task
from orcdbg.target.session import Session
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace
from orcdbg.unwind.starts import stacks_of
from orcdbg.unwind.unwinder import Unwinder

SECONDS = 1.0


class DamagedStacks:
    """Kernel memory in which some bytes are others, and some pages missing."""

    def __init__(self, memory: AddressSpace, changed: dict[int, int], missing: set[int]) -> None:
        self._memory = memory
        self.changed = changed
        self.missing = missing

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, damage included."""
        for page in range(address // PAGE, (address + size - 1) // PAGE + 1):
            if page in self.missing:
                raise NotInSnapshot("virtual", max(page * PAGE, address), size)
        data = bytearray(self._memory.read(address, size))
        for at, value in self.changed.items():
            if address <= at < address + size:
                data[at - address] = value
        return bytes(data)


@dataclass
class Report:
    """What was seen: walks by how they ended, frames without a mark by what they are, and the failures in words."""

    ends: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Ground:
    """The stacks of one snapshot, and what walks over them give while they are whole."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.calls = session.kernel.terrain.evidence.calls
        self.traces: list[tuple[Task, StackTrace, list[Stack]]] = []
        for task in session.tasks:
            trace = session.unwinder.trace(task)
            cpu = trace.cpu if trace.running else None
            stacks = [s for s in stacks_of(session.linux, task.address, cpu) if _used(trace, s)]
            if trace.frames and stacks:
                self.traces.append((task, trace, stacks))

    def damaged(self, memory: DamagedStacks) -> Unwinder:
        """Walks over damaged stacks; names and tables are those of the whole snapshot."""
        return self.session.kernel.unwinder_over(memory)


def _used(trace: StackTrace, stack: Stack) -> bool:
    return any(stack.begin <= frame.sp <= stack.end for frame in trace.frames)


def _places(trace: StackTrace, stacks: list[Stack], chance: random.Random) -> Iterator[int]:
    """Addresses to change: half of them in words that the walk reads, half anywhere above its lowest stack pointer."""
    slots = [f.came_from for f in trace.frames if f.came_from is not None]
    slots += [f.cfa - 16 for f in trace.frames if f.cfa is not None]
    while True:
        if slots and chance.random() < 0.5:
            yield chance.choice(slots) + chance.randrange(8)
            continue
        stack = chance.choice(stacks)
        lowest = min((f.sp for f in trace.frames if stack.begin <= f.sp < stack.end), default=stack.begin)
        yield chance.randrange(max(stack.begin, lowest - 64), stack.end)


def damage(ground: Ground, trace: StackTrace, stacks: list[Stack], chance: random.Random) -> DamagedStacks:
    """One copy's damage."""
    memory = ground.session.memory
    changed: dict[int, int] = {}
    missing: set[int] = set()
    if chance.random() < 0.2:
        stack = chance.choice(stacks)
        missing.add(chance.randrange(stack.begin, stack.end) // PAGE)
    places = _places(trace, stacks, chance)
    for _ in range(chance.choice((1, 1, 2, 4, 16)) if not missing or chance.random() < 0.5 else 0):
        at = next(places)
        try:
            old = memory.read(at, 1)[0]
        except NotInSnapshot:
            continue
        changed[at] = chance.choice((old ^ 1 << chance.randrange(8), chance.randrange(256), 0, 0xFF))
    return DamagedStacks(memory, changed, missing)


def _key(frame: Frame) -> tuple[object, ...]:
    """What makes a frame this one: its ip is the code that runs, its stack pointer the place."""
    return (frame.kind, frame.ip, frame.sp) if frame.kind != FrameKind.USER else ("user", frame.came_from)


def judge(ground: Ground, whole: StackTrace, trace: StackTrace, frame: Frame, memory: DamagedStacks) -> str:
    """What a frame without a mark is: `true`, `undecidable`, or `wrong`."""
    if _key(frame) in {_key(one) for one in whole.frames}:
        return "true"
    slot = frame.came_from
    if slot is None or frame.location is None:
        return "wrong"
    twin = next((one for one in whole.frames if one.came_from == slot), None)
    if twin is None or twin.location is None or twin.kind != frame.kind:
        return "wrong"
    same_function = twin.location.start == frame.location.start
    if frame.kind != FrameKind.CALL:
        was_changed = any(slot <= at < slot + 40 for at in memory.changed)
        return "undecidable" if was_changed and same_function and abs(twin.sp - frame.sp) < 80 else "wrong"
    if twin.sp != frame.sp or not any(slot <= at < slot + 8 for at in memory.changed):
        return "wrong"
    below = trace.frames[frame.index - 1].location if frame.index else None
    calls_it = below is not None and ground.calls.leads_to(frame.ip, below) is True
    return "undecidable" if same_function or calls_it else "wrong"


def run(ground: Ground, copies: int, seed: int) -> Report:
    """Walks `copies` damaged copies."""
    report = Report()
    for number in range(copies):
        chance = random.Random(f"{seed} {number}")
        task, whole, stacks = chance.choice(ground.traces)
        memory = damage(ground, whole, stacks, chance)
        start = time.process_time()
        trace = ground.damaged(memory).trace(task)
        took = time.process_time() - start
        report.slowest = max(report.slowest, took)
        report.ends[trace.end.value if trace == whole else f"{trace.end.value}, changed"] += 1
        where = f"seed {seed} copy {number} pid {task.pid} changed {[hex(at) for at in memory.changed]}"
        if took > SECONDS:
            report.failures.append(f"{where}: {took:.1f} s")
        for frame in trace.frames:
            what = judge(ground, whole, trace, frame, memory) if frame.mark.is_sure else "marked"
            report.frames[what] += 1
            if what == "wrong":
                report.failures.append(f"{where}: frame {frame.index} {frame.ip:#x} {frame.location}")
    return report


def main() -> int:
    """The command line; exit status 1 when a frame was wrong and not marked."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--copies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("files", nargs="*", metavar="VMLINUX SNAPSHOT")
    arguments = parser.parse_args()
    ground = Ground(orcdbg.open(*(arguments.files or sample_files())))
    start = time.monotonic()
    report = run(ground, arguments.copies, arguments.seed)
    print(f"seed {arguments.seed}: {arguments.copies} copies in {time.monotonic() - start:.1f} s", end=", ")
    print(f"slowest walk {report.slowest * 1000:.0f} ms")
    for title, counter in (("walks", report.ends), ("frames", report.frames)):
        print(f"  {title}: " + ", ".join(f"{count} {name}" for name, count in counter.most_common()))
    for failure in report.failures:
        print("  " + failure)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
