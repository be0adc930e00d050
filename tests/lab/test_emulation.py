"""Truth by the other CPU: from the same state, the emulator and the guest run the same instructions to the same registers.

The emulator goes first, over the memory of the guest that stands still; then the guest is stepped, and registers and memory
are compared. The guest has one CPU, and nobody else writes to its memory meanwhile: the comparison of memory shows that.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from orcdbg.base.sizes import PAGE
from orcdbg.emulation.stops import StoppedBy
from orcdbg.unwind.frame import End, StackTrace
from tests.lab import scripts
from tests.lab.busy import busy_guest, on_a_living_guest
from tests.lab.conftest import KERNELS
from tests.lab.emulated import WORD, Emulated, Registers, Run, compare, registers_of, same
from tests.lab.failures import Difference
from tests.lab.gdbstub import WaitsForInterrupt
from tests.lab.guest import MEMORY
from tests.lab.live import LiveKernel, open_live
from tests.lab.loads import Load, loads
from tests.lab.stepping import Caller, callers, contradictions

pytestmark = pytest.mark.lab

FUNCTIONS_VARIABLE = "ORCDBG_LAB_FUNCTIONS"
FUNCTIONS = int(os.environ.get(FUNCTIONS_VARIABLE) or 30)
STEPS = 60
SEARCH = 400  # steps to look for a function's entry, before the guest runs on
ATTEMPTS = 100 * FUNCTIONS


@dataclass
class Tally:
    """Over all functions of a kernel."""

    functions: set[str] = field(default_factory=set)
    instructions: int = 0
    pages: int = 0
    walks: int = 0
    unknown: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def emulate(live: LiveKernel, registers: Registers, name: str) -> Run:
    """Runs up to STEPS instructions; as long as the function runs its callers must not change."""
    one = Emulated(live, registers)
    entry = one.trace()
    known: list[Caller] = callers(entry)
    sp, is_inside = registers["rsp"], entry.end != End.STOPPED and not any(frame.doubt for frame in entry.frames)
    run = Run(one, [same(registers)], None, unknown=[] if is_inside else [f"{name}: {entry.end_reason or 'a doubt'}"])
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
            try:
                live.stub.step()
            except WaitsForInterrupt:
                break


def compare_functions(live: LiveKernel, random: Random) -> Tally:
    """Both CPUs over FUNCTIONS functions."""
    tally = Tally()
    for name, registers in entries(live, random, tally.functions):
        tally.functions.add(name)
        run = emulate(live, registers, name)
        compare(live, run, name)
        tally.instructions += len(run.states) - 1
        tally.pages += len(run.emulated.touched)
        tally.walks, tally.unknown = tally.walks + run.walks, tally.unknown + run.unknown
        if run.stop is not None:
            assert run.stop.by in (StoppedBy.UNSUPPORTED, StoppedBy.FAULT), run.stop
            tally.refused[(run.stop.why or "").partition(":")[0].split()[0]] += 1
        if len(tally.functions) == FUNCTIONS:
            break
    return tally


def read_only_load(run: Run) -> Load | None:
    """The first load of a word that no instruction of the run writes, not even with what is there already."""
    machine, touched = run.emulated.machine, run.emulated.touched
    all_loads = list[Load]()
    for registers in run.states[:-1]:
        insn = machine.instruction(registers["rip"])
        all_loads += loads(insn.raw, registers, run.emulated.gs_base) if insn is not None else ()
    written = [load for load in all_loads if load.may_write]
    # Pushes and calls write below where the stack pointer was.
    pushed = range(min(state["rsp"] for state in run.states) - WORD, max(state["rsp"] for state in run.states))

    for load in all_loads:
        page, offset = load.address // PAGE * PAGE, load.address % PAGE
        is_word = load.size == WORD and offset % WORD == 0 and page in touched
        is_written = any(
            other.address < load.address + WORD and load.address < other.address + other.size for other in written
        )
        if not is_word or is_written or load.address in pushed:
            continue
        if touched[page][offset:][:WORD] == machine.memory.read(load.address, WORD):
            return load
    return None


def check_foreign_write(live: LiveKernel, random: Random) -> str:
    """A word that another writes between the emulator's run and the guest's fails the comparison, which names its load."""
    for name, registers in entries(live, random, set()):
        run = emulate(live, registers, name)
        load = read_only_load(run)
        if load is None:
            continue
        physical = live.session.memory.translate(load.address)
        then = live.stub.read_memory(physical, WORD)
        live.stub.write_memory(physical, bytes((then[0] ^ 1,)))
        with pytest.raises(Difference) as raised:
            compare(live, run, name)
        account = str(raised.value)
        line = next((line for line in account.splitlines() if f"8 bytes at {load.address:#x}" in line), account)
        assert line.startswith("LOAD OF A WORD THAT DIFFERS"), account
        assert f": {then[::-1].hex()} then, " in line, account
        return name
    raise AssertionError("no function reads a word that it does not write")


@pytest.mark.parametrize("kernel", KERNELS)
@on_a_living_guest
def test_the_emulator_and_the_guest_do_the_same(kernel: str, seed: int, tmp_path: Path) -> None:
    """The same instructions and registers, up to the first that the emulator refuses; callers never change meanwhile."""
    random = Random(seed)
    with busy_guest(kernel, random, tmp_path) as (guest, found, console), guest.stub() as stub:
        live = open_live(stub, found.vmlinux, scripts.parse_symbols(console)["_text"], MEMORY)
        tally = compare_functions(live, random)
        found_write = check_foreign_write(live, random)  # last, since the guest is damaged then
    words = ", ".join(f"{name} {count}" for name, count in tally.refused.most_common(8))
    print(
        f"{kernel}: {len(tally.functions)} functions, {tally.instructions} instructions and {tally.pages} pages the same, "
        f"{stub.pauses} pauses gone past by hand; a foreign write was found in {found_write}; {tally.walks} walks, "
        f"{len(tally.unknown)} without callers {tally.unknown[:3]}; stopped at: {words}"
    )
    assert len(tally.functions) == FUNCTIONS
    assert tally.walks > tally.instructions // 4
