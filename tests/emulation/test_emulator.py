"""The emulator on text made by hand: what it runs, where it stops, and that it comes back."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orcdbg.base.sizes import PAGE
from orcdbg.emulation.emulator import CHECKPOINT_EVERY, Emulator, Limits
from orcdbg.emulation.engine import REGISTERS
from orcdbg.emulation.pages import Page
from orcdbg.emulation.refusals import refusal
from orcdbg.emulation.stops import StoppedBy
from orcdbg.x86.instructions import Instruction, decode_one
from tests.build.emulated_cpu import DATA, TEXT, emulator

# inc %rax; add %rax,(%rdi); cmp %rsi,%rax; jne TEXT; ret
LOOP = bytes.fromhex("48ffc0 480107 4839f0 75f5 c3")


def state(machine: Emulator) -> tuple[Mapping[str, int], bytes]:
    """Registers and memory."""
    return machine.registers(), machine.memory.read(DATA, 2 * PAGE)


def test_long_runs_and_single_steps_are_the_same() -> None:
    """Block by block, or one instruction after another: the same state after the same count."""
    for count in (1, 2, 7, 400, 401):
        one, other = emulator(LOOP, rsi=1 << 40), emulator(LOOP, rsi=1 << 40)
        assert one.run(count).by == StoppedBy.COUNT
        for _ in range(count):
            assert other.step() is None
        assert state(one) == state(other)
        assert one.executed == other.executed == count


def test_a_run_stops_at_an_address_each_time_it_comes_by() -> None:
    """In the middle of a block, as often as it is run, without standing still."""
    machine = emulator(LOOP, rsi=5)
    for turn in range(1, 6):
        assert machine.run(1000, {TEXT + 6}).by == StoppedBy.BREAKPOINT
        assert (machine.ip, machine.registers()["rax"]) == (TEXT + 6, turn)


@pytest.mark.parametrize("count", [1, 5, 399, 3 * CHECKPOINT_EVERY + 17])
def test_backwards_gives_the_state_that_was(count: int) -> None:
    """Registers and memory, also over checkpoints; and forwards again the one that came after."""
    machine = emulator(LOOP, rsi=1 << 40)
    machine.run(1003)
    before = state(machine)
    machine.run(count)
    after = state(machine)
    assert machine.back(count).by == StoppedBy.COUNT
    assert state(machine) == before
    machine.run(count)
    assert state(machine) == after


def test_backwards_ends_at_the_start() -> None:
    """With a word that it did."""
    machine = emulator(LOOP, rsi=1 << 40)
    before = state(machine)
    machine.run(10)
    assert machine.back(11).by == StoppedBy.START
    assert state(machine) == before


def test_many_checkpoints_are_thinned_and_still_lead_back() -> None:
    """Every page that was written is as it was."""
    machine = emulator(LOOP, rsi=1 << 40)
    machine.run(100)
    before = state(machine)
    machine.run(90 * CHECKPOINT_EVERY)
    machine.back(90 * CHECKPOINT_EVERY)
    assert state(machine) == before


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("0f30", "wrmsr: privileged"),
        ("ec", "I/O"),
        ("f4", "waits for an interrupt"),
        ("0f20c0", "privileged"),
        ("0f0138", "privileged"),
        ("0f01f8", "privileged"),
        ("48cf", "enters or leaves"),
        ("480f07", "enters or leaves"),
        ("0f05", "enters or leaves"),
        ("0f31", "depends on the machine"),
        ("0f01f9", "depends on the machine"),
        ("0fc7f0", "depends on the machine"),
        ("0fa2", "depends on the machine"),
        ("cc", "exception code"),
        ("0f0b", "exception code"),
        ("c5fd6f00", "not in the snapshot"),
        ("660f6f00", "not in the snapshot"),
        ("dbe3", "not in the snapshot"),
        ("480fae20", "not in the snapshot"),
        ("8ed8", "segment registers"),
        ("0f00d8", "segment registers"),
        ("0fff", "exception code"),
        ("06", "no known instruction"),
    ],
)
def test_what_is_not_emulated_stops_with_a_word(code: str, word: str) -> None:
    """Before it, whether in a long run or by single steps; and it can be skipped where it has a length."""
    text = bytes.fromhex("90" + code + "9090")
    machine = emulator(text)
    stop = machine.run(10)
    assert (stop.by, machine.ip, machine.executed) == (StoppedBy.UNSUPPORTED, TEXT + 1, 1), stop
    assert word in (stop.why or "")
    by_steps = emulator(text)
    assert (by_steps.step(), by_steps.step()) == (None, stop)
    if machine.instruction(machine.ip) is None:
        assert machine.skip() is None
        return
    assert machine.skip()
    assert machine.ip == TEXT + 1 + len(code) // 2
    assert (machine.run(1).by, machine.executed) == (StoppedBy.COUNT, 3)
    machine.back(2)
    assert (machine.ip, machine.executed) == (TEXT + 1, 1)


@pytest.mark.parametrize("code", ["fa", "fb", "9c", "9d", "f00fb107", "65488b042500000000", "f3aa", "0f01cb", "f390"])
def test_what_only_looks_dangerous_is_run(code: str) -> None:
    """cli, sti, pushf, popf, lock cmpxchg, memory of the CPU, rep stos, stac, pause."""
    raw = bytes.fromhex(code)
    insn = decode_one(raw, TEXT)
    assert insn is not None
    assert refusal(insn) is None
    assert emulator(raw, rsp=DATA + 0x800).step() is None


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("488b00", "user address 0x0"),
        ("488906", "writes to kernel text"),
        ("ff26", "not mapped"),
        ("48f7f1", "raises an exception"),
    ],
)
def test_what_faults_stops_before_the_instruction(code: str, word: str) -> None:
    """User memory, kernel text, holes, division by zero: the count is exact, the registers are those before."""
    machine = emulator(bytes.fromhex("48ffc3" + code + "90"), rsi=TEXT)
    stop = machine.run(10)
    if code == "ff26":  # the jump itself is run; what it leads to is not there
        assert machine.executed == 2
    else:
        assert (stop.by, machine.ip, machine.executed) == (StoppedBy.FAULT, TEXT + 3, 1)
    assert word in (stop.why or "")
    assert machine.registers()["rbx"] == 1


def test_the_cpus_own_data_is_found_through_gs() -> None:
    """mov %gs:0x8,%rax reads at the GS base."""
    machine = emulator(bytes.fromhex("65488b042508000000"))
    machine.memory.read(DATA, 8)
    machine.memory.put_back({machine.memory._frame(DATA): bytes(0x108) + b"\x2a" + bytes(PAGE - 0x109)})
    machine.step()
    assert machine.registers()["rax"] == 0x2A


def test_limits_end_a_run_with_a_word() -> None:
    """Instructions, seconds, memory."""
    endless = bytes.fromhex("ebfe")
    assert emulator(endless, Limits(instructions=1000)).run(5000).why == "more than 1000 instructions"
    assert emulator(endless, Limits(seconds=0.05)).run(10**7).why == "more than 0.05 s"
    assert "pages" in (emulator(LOOP, Limits(pages=1), rsi=3).run(10).why or "")


def test_the_snapshot_is_never_written() -> None:
    """Pages that were given stay as they are, whatever is written over them."""
    machine = emulator(LOOP, rsi=50)
    given = bytes(PAGE)
    machine.run(40)
    assert machine.memory.read(DATA, PAGE) != given
    assert emulator(LOOP).memory.read(DATA, PAGE) == given


def test_backwards_goes_past_what_was_skipped() -> None:
    """Over many skips and checkpoints, the state is that which was."""
    machine = emulator(bytes.fromhex("f4 48ffc0 480107 ebf7"))

    def on(count: int) -> None:
        goal = machine.executed + count
        while machine.executed < goal:
            if machine.run(goal - machine.executed).by == StoppedBy.UNSUPPORTED:
                assert machine.skip() == "hlt"

    on(1000)
    before = state(machine)
    on(2 * CHECKPOINT_EVERY)
    assert machine.back(2 * CHECKPOINT_EVERY).by == StoppedBy.COUNT
    assert state(machine) == before


@pytest.mark.parametrize(("code", "count", "executed"), [("f3aa", 5, 5), ("f3aa", 0, 1), ("48ffc0 f3aa", 3, 4)])
def test_each_repetition_counts_and_the_last_one_goes_on(code: str, count: int, executed: int) -> None:
    """rep stos with a count of 0 is one instruction that does nothing; single steps and long runs agree."""
    text, end = bytes.fromhex(code + "90cc"), TEXT + len(bytes.fromhex(code))
    one, other = emulator(text, rcx=count), emulator(text, rcx=count)
    while one.ip != end:
        assert one.step() is None
    assert one.executed == executed
    assert other.run(100).by == StoppedBy.UNSUPPORTED
    assert (other.ip, other.executed) == (end + 1, executed + 1)
    assert one.step() is None
    assert state(one) == state(other)
    other.back(2)
    assert other.executed == executed - 1


def test_ctrl_c_leaves_a_state_that_can_be_gone_on_from() -> None:
    """The last checkpoint's: what comes after is what would have come."""
    machine, other = emulator(LOOP, rsi=1 << 40), emulator(LOOP, rsi=1 << 40)
    before = machine.instruction
    calls = 0

    def interrupted(address: int) -> Instruction | None:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return before(address)

    machine.instruction = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        machine.run(50)
    machine.run(50 - machine.executed)
    other.run(50)
    assert state(machine) == state(other)


def test_the_way_back_is_not_limited() -> None:
    """It is as long as the way there was."""
    machine = emulator(LOOP, Limits(instructions=100), rsi=1 << 40)
    for _ in range(5):
        machine.run(100)
    before = state(machine)
    machine.run(10)
    assert machine.back(10).by == StoppedBy.COUNT
    assert (state(machine), machine.executed) == (before, 500)


# mov %rax,(%rdi); mov (%rsi),%rdx; jmp *%rsi
ALIASES = bytes.fromhex("488907 488b16 ffe6")


def by_page_tables(data: Page, again: Page, **registers: int) -> Emulator:
    """A CPU at ALIASES, with two pages of data as the page tables have them; rdi and rsi point into them."""
    pages = {TEXT: Page(ALIASES.ljust(PAGE, b"\xcc")), DATA: data, DATA + PAGE: again}
    values = {**dict.fromkeys(REGISTERS, 0), "rip": TEXT, "rflags": 2, "rdi": DATA, "rsi": DATA + PAGE, **registers}
    return Emulator(pages.__getitem__, lambda address: TEXT <= address < TEXT + PAGE, values, 0)


@pytest.mark.parametrize("physical", [None, 0x5000])
def test_a_page_by_two_names_is_one_page(physical: int | None) -> None:
    """What is written by one is read by the other, and is as it was again when stepped back."""
    one = Page(bytes(PAGE), (), physical)
    machine = by_page_tables(one, one, rax=0x1234)
    assert machine.run(2).by == StoppedBy.COUNT
    assert machine.registers()["rdx"] == (0 if physical is None else 0x1234)
    assert machine.back(2).by == StoppedBy.COUNT
    assert machine.memory.read(DATA + PAGE, 8) == bytes(8)


def test_what_page_tables_forbid_ends_the_run() -> None:
    """A write to a read-only page, also after it was read; and code in a page that may not be run."""
    machine = by_page_tables(Page(bytes(PAGE), (), 0x5000, writable=False), Page(bytes(PAGE)))
    stop = machine.step()
    assert stop is not None
    assert (stop.by, stop.why) == (
        StoppedBy.FAULT,
        f"movq %rax, (%rdi): it writes to the page {DATA:#x}, which is read-only",
    )
    machine = by_page_tables(Page(bytes(PAGE)), Page(b"\x90" * PAGE, executable=False))
    assert machine.run(2).by == StoppedBy.COUNT
    stop = machine.step()
    assert stop is not None
    assert (stop.by, stop.why, machine.ip) == (
        StoppedBy.FAULT,
        f"jmpq *%rsi: it runs the page {DATA + PAGE:#x}, which may not be run",
        TEXT + len(ALIASES) - 2,
    )
