"""Truth by the other CPU: from the same state, the emulator and the guest run the same instructions to the same registers.

The emulator goes first, over the memory of the guest that stands still; then the guest is stepped, and compared.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from orcdbg.emulation.emulator import Emulator
from orcdbg.emulation.engine import REGISTERS
from orcdbg.emulation.pages import PageSource
from orcdbg.emulation.stops import Stop, StoppedBy
from orcdbg.kernel.tasks import Task, current_task, read_task
from orcdbg.unwind.frame import End, FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.unwind.walker import State
from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.guest import MEMORY
from tests.lab.live import LiveKernel, open_live
from tests.lab.stepping import Caller, callers, contradictions

pytestmark = pytest.mark.lab

FUNCTIONS_VARIABLE = "ORCDBG_LAB_FUNCTIONS"
FUNCTIONS = int(os.environ.get(FUNCTIONS_VARIABLE) or 30)
STEPS = 60
SEARCH = 400  # steps to look for a function's entry, before the guest runs on
ATTEMPTS = 100 * FUNCTIONS
# Set behind a breakpoint, for the debugger's sake.
_RESUME_FLAG = 1 << 16
Registers = dict[str, int]


@dataclass
class Run:
    """What the emulator did: registers before each instruction and after the last, why it ended, and what walks said."""

    states: list[Registers]
    stop: Stop | None
    walks: int = 0
    unknown: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """Over all functions of a kernel."""

    functions: set[str] = field(default_factory=set)
    instructions: int = 0
    walks: int = 0
    unknown: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def registers_of(live: LiveKernel) -> Registers:
    """The guest's registers by our names; the flag that only debuggers see is left out."""
    found = live.stub.read_registers()
    found["rflags"] = found["eflags"] & ~_RESUME_FLAG
    return found


def same(states: Registers) -> Registers:
    """The registers that are compared."""
    return {name: states[name] for name in REGISTERS}


class Emulated:
    """An emulator at the state in which the guest stands."""

    def __init__(self, live: LiveKernel, registers: Registers) -> None:
        session = live.session
        session.memory.forget()
        address = current_task(session.linux, 0)
        assert address is not None
        self._task: Task = read_task(session.linux, address)
        self._pages = PageSource(session.memory, session.code)
        self.machine = Emulator(self._pages.page, session.is_text, same(registers), registers["gs_base"])
        memory = self.machine.memory
        self._unwinder: Unwinder = session.kernel.unwinder_over(memory)

    def trace(self) -> StackTrace:
        """The stack of the emulated CPU."""
        values = {name: RegisterValue(value, "emulated") for name, value in self.machine.registers().items()}
        return self._unwinder.from_state(
            self._task, State(self.machine.ip, True, values, FrameKind.INTERRUPT, None), "given"
        )


def emulate(live: LiveKernel, registers: Registers, name: str) -> Run:
    """Runs up to STEPS instructions; as long as the function runs its callers must not change."""
    one = Emulated(live, registers)
    entry = one.trace()
    known: list[Caller] = callers(entry)
    sp, is_inside = registers["rsp"], entry.end != End.STOPPED and not any(frame.doubt for frame in entry.frames)
    run = Run([same(registers)], None, unknown=[] if is_inside else [f"{name}: {entry.end_reason or 'a doubt'}"])
    for _ in range(STEPS):
        run.stop = one.machine.step()
        if run.stop is not None:
            return run
        run.states.append(same(one.machine.registers()))
        here = live.session.names.at(one.machine.ip)
        is_inside = is_inside and one.machine.registers()["rsp"] <= sp
        is_inside = is_inside and here is not None and not here.symbol.startswith("__switch_to")
        if is_inside:
            walk(run, one.trace(), known, sp, f"{name}, at {live.session.names.describe(one.machine.ip)}")
    return run


def walk(run: Run, trace: StackTrace, known: list[Caller], sp: int, where: str) -> None:
    """Holds a walk against the callers found at the entry: the same, or a word that they are not known."""
    run.walks += 1
    assert contradictions(trace, known, sp) == [], where
    if callers(trace)[-len(known) :] != known:
        doubts = [frame.doubt for frame in trace.frames if frame.doubt]
        assert trace.end == End.STOPPED or doubts, where
        run.unknown.append(f"{where}: {trace.end_reason or doubts[0]}")


def compare(live: LiveKernel, run: Run, name: str) -> int:
    """Steps the guest, and holds each state against the emulator's; the number of instructions."""
    for number, (before, expected) in enumerate(zip(run.states, run.states[1:], strict=False)):
        live.stub.step()
        found = same(registers_of(live))
        where = f"{name}: instruction {number} at {live.session.names.describe(before['rip'])}"
        assert {k: f"{v:#x}" for k, v in found.items()} == {k: f"{v:#x}" for k, v in expected.items()}, where
    return len(run.states) - 1


def entries(live: LiveKernel, random: Random, done: set[str]) -> Iterator[tuple[str, Registers]]:
    """Stops the guest at the entry of one function after another, none twice; it runs on a little in between."""
    session = live.session
    start, end = session.linux.address("__entry_text_start"), session.linux.address("__entry_text_end")
    for _ in range(ATTEMPTS):
        live.stub.resume(random.uniform(0.001, 0.02))
        for _ in range(SEARCH):
            registers = registers_of(live)
            ip = registers["rip"]
            if not ip >> 63:
                break
            place = session.names.at(ip) if session.is_text(ip) and not start <= ip < end else None
            is_entry = (
                place is not None and place.start == ip and not place.symbol.startswith(("__x86_", "__switch_to"))
            )
            if is_entry and place is not None and place.symbol not in done:
                yield place.symbol, registers
                break
            live.stub.step()


def compare_functions(live: LiveKernel, random: Random) -> Tally:
    """Both CPUs over FUNCTIONS functions."""
    tally = Tally()
    for name, registers in entries(live, random, tally.functions):
        tally.functions.add(name)
        run = emulate(live, registers, name)
        tally.instructions += compare(live, run, name)
        tally.walks, tally.unknown = tally.walks + run.walks, tally.unknown + run.unknown
        if run.stop is not None:
            assert run.stop.by in (StoppedBy.UNSUPPORTED, StoppedBy.FAULT), run.stop
            tally.refused[(run.stop.why or "").partition(":")[0].split()[0]] += 1
        if len(tally.functions) == FUNCTIONS:
            break
    return tally


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_the_emulator_and_the_guest_do_the_same(kernel: str, seed: int, tmp_path: Path) -> None:
    """The same instructions and registers, up to the first that the emulator refuses; callers never change meanwhile."""
    random = Random(seed)
    with busy_guest(kernel, random, tmp_path) as (guest, found, console), guest.stub() as stub:
        assert int(stub.ask("qqemu.sstep"), 16) & 6 == 6, "the stub lets interrupts in while it steps"
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"], MEMORY)
        tally = compare_functions(live, random)
    words = ", ".join(f"{name} {count}" for name, count in tally.refused.most_common(8))
    print(
        f"{kernel}: {len(tally.functions)} functions, {tally.instructions} instructions the same, {tally.walks} walks, "
        f"{len(tally.unknown)} without callers {tally.unknown[:3]}; stopped at: {words}"
    )
    assert len(tally.functions) == FUNCTIONS
    assert tally.walks > tally.instructions // 4
