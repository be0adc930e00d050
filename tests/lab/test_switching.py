"""Truth by stepping: through the switch from one task to the next, at each instruction of which both stacks must be right.

Before the switch the outgoing task's callers and the incoming task's sleeping stack are known. They stay the same, each under
its own task's name, wherever the CPU is in between, and whichever of the two `current` names.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from orcdbg.kernel.stacks import Stack, task_stack
from orcdbg.kernel.tasks import current_task, read_task
from orcdbg.unwind.frame import End, FrameKind, StackTrace
from orcdbg.unwind.reasons import SwitchingFrom, SwitchingTo
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.views.reasons import words_or_none
from tests.lab import scripts
from tests.lab.boots import TRACING
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.live import LiveKernel, open_live

pytestmark = pytest.mark.lab

SWITCHES, WAIT, LIMIT = 2, 20.0, 20_000
ELSEWHERE = 40  # instructions outside the switch that are looked at
SWITCHING = ("__switch_to_asm", "__switch_to")
# None of those that wait for all children: some of these never end.
WORK = "\n".join(scripts.WORKLOADS[name] for name in ("pipe", "timer", "signal", "copy"))
# Tasks sleep below traced functions, and one that __switch_to calls before it sets `current` is traced too.
GRAPH = (
    TRACING
    + """
for one in 'schedule*' '*sleep*' 'pipe_*' 'do_wait' 'save_fpregs_to_fpstate' 'copy_fpregs_to_fpstate'; do
echo "$one" >> set_ftrace_filter
done 2>/dev/null
echo function_graph > current_tracer
cd /
"""
)
INIT = scripts.write_symbols(["_text"]) + GRAPH + f"(while :; do :; done) &\necho {scripts.BUSY}\n" + (
    f"while :; do\n{WORK}\ndone\n"
)  # fmt: skip

Place = tuple[int, int]


def places(trace: StackTrace) -> list[Place]:
    """ip and stack pointer of each frame."""
    return [(frame.ip, frame.sp) for frame in trace.frames]


def doubts(trace: StackTrace) -> list[str]:
    """What a trace says against itself, in words."""
    found = [trace.end_reason] * (trace.end is End.STOPPED) + [frame.doubt for frame in trace.frames if frame.doubt]
    return [words_or_none(reason) or "no reason" for reason in found]


class Switch:
    """One switch, from the first instruction of __switch_to_asm on."""

    def __init__(self, live: LiveKernel) -> None:
        self.live = live
        registers = live.stub.read_registers()
        self.outgoing, self.incoming = registers["rdi"], registers["rsi"]
        self.outgoing_stack, self.incoming_stack = self.stack(self.outgoing), self.stack(self.incoming)
        self.stops = Counter[str]()

        unwinder = live.unwinder()
        before, asleep = self.trace(unwinder, self.outgoing), self.trace(unwinder, self.incoming)
        self.doubts = [*doubts(before), *doubts(asleep)]
        self.callers, self.sleeping = places(before)[1:], places(asleep)
        self.ends = {self.outgoing: before.end, self.incoming: asleep.end}

    def stack(self, task: int) -> Stack:
        """A task's own stack."""
        self.live.session.memory.forget()
        found = task_stack(self.live.session.linux, task)
        assert found is not None
        return found

    def trace(self, unwinder: Unwinder, task: int) -> StackTrace:
        """The stack that is shown for a task."""
        return unwinder.trace(read_task(self.live.session.linux, task))

    def follow(self) -> None:
        """To where the incoming task goes on, with a look at both stacks at each instruction."""
        elsewhere = 0
        for _ in range(LIMIT):
            # What the switch calls may be a tracer, which runs for long.
            if elsewhere < ELSEWHERE:
                self.look()
            self.live.stub.step()
            registers = self.live.stub.read_registers()
            if (registers["rip"], registers["rsp"]) == self.sleeping[0]:
                return
            place = self.live.session.names.at(registers["rip"])
            elsewhere = 0 if place is not None and place.symbol in SWITCHING else elsewhere + 1
        raise AssertionError(f"no end of it: {self.live.session.names.describe(registers['rip'])}")

    def look(self) -> None:
        """Each stack stands under its own task's name, and a word says that the CPU is between them."""
        registers = self.live.stub.read_registers()
        unwinder = self.live.unwinder()
        linux = self.live.session.linux
        where = self.live.session.names.describe(registers["rip"])
        is_over = self.incoming_stack.holds(registers["rsp"])
        assert is_over or self.outgoing_stack.holds(registers["rsp"]), where
        is_between = is_over and current_task(linux, 0) == self.outgoing
        assert list(unwinder.running) == [self.incoming if is_over else self.outgoing], where

        outgoing, incoming = self.trace(unwinder, self.outgoing), self.trace(unwinder, self.incoming)
        if doubts(incoming) and self.is_entry_half_written(incoming):
            sure = [
                (frame.ip, frame.sp) for frame in incoming.frames if frame.is_trusted and frame.sp > registers["rsp"]
            ]
            assert not [place for place in sure if place[1] > self.sleeping[0][1] and place not in self.sleeping]
            self.stops["while an entry was written"] += 1
            return
        assert (doubts(outgoing), doubts(incoming)) == ([], []), where
        assert (outgoing.running, incoming.running) == (not is_over, is_over)
        assert {self.outgoing: outgoing.end, self.incoming: incoming.end} == self.ends, where
        asleep, awake = (outgoing, incoming) if is_over else (incoming, outgoing)
        known_asleep, known = (self.callers, self.sleeping) if is_over else (self.sleeping, self.callers)
        assert places(asleep) == known_asleep, where
        self.check_awake(awake, known, where)

        both = [read_task(linux, task) for task in (self.outgoing, self.incoming)]
        assert [places(trace) for trace in unwinder.traces(both)] == [places(outgoing), places(incoming)]
        said = {type(note) for trace in (outgoing, incoming) for note in trace.frames[0].notes}
        assert (SwitchingFrom in said, SwitchingTo in said) == (is_between, is_between), where
        self.stops["between" if is_between else "over" if is_over else "before"] += 1

    @staticmethod
    def is_entry_half_written(trace: StackTrace) -> bool:
        """Whether function_graph is just taking a return address, in kernels that replace it before they write it down."""
        symbols = {frame.location.symbol for frame in trace.frames if frame.location}
        return bool(symbols & {"prepare_ftrace_return", "function_graph_enter"}) and "ftrace_graph_func" not in symbols

    def check_awake(self, trace: StackTrace, known: list[Place], where: str | None) -> None:
        """The CPU's frames: what the switch has called since, the switch itself, and what was known."""
        assert places(trace)[-len(known) :] == known, where
        own = trace.frames[: -len(known)]
        assert own, where
        symbols = [frame.location.symbol if frame.location else "" for frame in own]
        assert symbols[-1] in SWITCHING, symbols
        assert not set(symbols[:-1]) & set(SWITCHING), symbols
        assert FrameKind.USER not in {frame.kind for frame in own}


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_both_stacks_are_right_at_every_instruction_of_a_switch(kernel: str, seed: int, tmp_path: Path) -> None:
    """Before the stack pointer is exchanged, until `current` is set, and until the next task goes on."""
    random, stops, pairs = Random(f"{seed} {kernel} switch"), Counter[str](), list[str]()
    with busy_guest(kernel, random, tmp_path, init=INIT) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"])
        entry = live.session.linux.address("__switch_to_asm")
        for _ in range(SWITCHES):
            stub.resume(0.2 * random.random())
            stub.set_breakpoint(entry)
            is_hit = stub.resume(WAIT)
            stub.clear_breakpoint(entry)
            assert is_hit
            switch = Switch(live)
            assert switch.doubts == []
            switch.follow()
            stops += switch.stops
            names = [read_task(live.session.linux, task).comm for task in (switch.outgoing, switch.incoming)]
            pairs.append(" to ".join(names))
    print(f"{kernel}: {dict(stops)}: {pairs}")
    assert stops["between"] >= SWITCHES * 10
