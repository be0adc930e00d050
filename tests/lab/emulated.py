"""Where do an emulated CPU and the guest part: in a register, or in memory, and which load was the first to see it?

The emulator goes first, over the guest's memory as it was when each page was touched. What it read and wrote is compared
with the guest's memory after the guest has run the same instructions: nobody else may have written there meanwhile. No one
has where the guest has one CPU, and steps let neither interrupts nor timers in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from orcdbg.base.sizes import PAGE
from orcdbg.emulation.emulator import Emulator
from orcdbg.emulation.engine import REGISTERS
from orcdbg.emulation.pages import Page, PageSource
from orcdbg.emulation.stops import Stop
from orcdbg.kernel.tasks import Task, current_task, read_task
from orcdbg.unwind.frame import FrameKind, RegisterValue, StackTrace
from orcdbg.unwind.unwinder import Unwinder
from orcdbg.unwind.walker import State
from tests.lab.failures import Difference
from tests.lab.live import LiveKernel
from tests.lab.loads import loads

# Set behind a breakpoint, for the debugger's sake.
_RESUME_FLAG = 1 << 16
WORD = 8
RECENT = 12  # instructions before a difference whose loads are named, changed or not
Registers = dict[str, int]


class Word(NamedTuple):
    """A word of memory: when the emulator first touched its page, as it left it, and in the guest now."""

    address: int
    then: int
    emulated: int
    now: int


def registers_of(live: LiveKernel) -> Registers:
    """The guest's registers by our names; the flag that only debuggers see is left out."""
    found = live.stub.read_registers()
    found["rflags"] = found["eflags"] & ~_RESUME_FLAG
    return found


def same(registers: Registers) -> Registers:
    """The registers that are compared."""
    return {name: registers[name] for name in REGISTERS}


class Emulated:
    """An emulator at the state in which the guest stands.

    Attributes:
        touched: each page that it has read or written, as the guest had it then, by virtual address.
    """

    def __init__(self, live: LiveKernel, registers: Registers) -> None:
        session = live.session
        session.memory.forget()
        address = current_task(session.linux, 0)
        assert address is not None
        self.touched: dict[int, bytes] = {}
        self.gs_base = registers["gs_base"]
        self._task: Task = read_task(session.linux, address)
        self._pages = PageSource(session.memory, session.code)
        self.machine = Emulator(self._page, session.is_text, same(registers), self.gs_base)
        memory = self.machine.memory
        self._unwinder: Unwinder = session.kernel.unwinder_over(memory)

    def _page(self, address: int) -> Page:
        page = self._pages.page(address)
        self.touched[address] = page.data
        return page

    def trace(self) -> StackTrace:
        """The stack of the emulated CPU."""
        values = {name: RegisterValue(value, "emulated") for name, value in self.machine.registers().items()}
        return self._unwinder.from_state(
            self._task, State(self.machine.ip, True, values, FrameKind.INTERRUPT, None), "given"
        )


@dataclass
class Run:
    """What the emulator did: registers before each instruction and after the last, why it ended, and what walks said."""

    emulated: Emulated
    states: list[Registers]
    stop: Stop | None
    walks: int = 0
    unknown: list[str] = field(default_factory=list)


def compare(live: LiveKernel, run: Run, name: str) -> None:
    """Steps the guest through what the emulator ran: registers after each instruction, and memory after the last.

    Raises:
        Difference: they differ; it names registers, words, and the loads that saw them.
    """
    for number, expected in enumerate(run.states[1:]):
        live.stub.step()
        guest = same(registers_of(live))
        if guest != expected:
            raise Difference("\n".join(_account(live, run, name, number, guest)))
    if changed_words(live, run.emulated):
        raise Difference("\n".join(_account(live, run, name, len(run.states) - 2, same(registers_of(live)))))


def changed_words(live: LiveKernel, emulated: Emulated) -> list[Word]:
    """The words on touched pages that are not in the guest what the emulator has there."""
    live.session.memory.forget()
    words = list[Word]()
    for address, then in sorted(emulated.touched.items()):
        now, mine = live.session.memory.read(address, PAGE), emulated.machine.memory.read(address, PAGE)
        places = range(0, PAGE, WORD) if now != mine else ()
        words += [
            Word(address + at, _word(then, at), _word(mine, at), _word(now, at))
            for at in places
            if now[at : at + WORD] != mine[at : at + WORD]
        ]
    return words


def _word(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + WORD], "little")


def _account(live: LiveKernel, run: Run, name: str, number: int, guest: Registers) -> Iterator[str]:
    """What differs after instruction `number`, and what was read up to there."""
    machine, states = run.emulated.machine, run.states
    expected = states[number + 1]
    describe = live.session.names.describe
    yield f"{name}: after instruction {number}, at {describe(states[number]['rip'])}"
    for register in REGISTERS:
        if guest[register] != expected[register]:
            yield f"{register}: {guest[register]:#x} in the guest, {expected[register]:#x} in the emulator"
    later = [at for at in range(number + 2, len(states)) if states[at] == guest]
    if later:
        yield f"the emulator came to the guest's state with instruction {later[0] - 1}: one step ran {later[0] - number}"

    # Memory as the emulator had it after this instruction.
    machine.back(machine.executed - (number + 1))
    words = changed_words(live, run.emulated)
    yield f"{len(words)} words of {len(run.emulated.touched)} touched pages differ"
    for word in words:
        yield f"word {_described(live, word)}"
    yield from _loads(live, run, number, words)


def _loads(live: LiveKernel, run: Run, number: int, words: list[Word]) -> Iterator[str]:
    """Each load of a word that differs, and all of the last instructions."""
    memory, touched = live.session.memory, run.emulated.touched
    for at, registers in enumerate(run.states[: number + 1]):
        insn = run.emulated.machine.instruction(registers["rip"])
        for load in loads(insn.raw, registers, run.emulated.gs_base) if insn is not None else ():
            seen = [
                word for word in words if load.address < word.address + WORD and word.address < load.address + load.size
            ]
            if not seen and at + RECENT <= number:
                continue
            page, offset = load.address // PAGE * PAGE, load.address % PAGE
            data = touched.get(page)
            then = data[offset : offset + load.size][::-1].hex() if data is not None else "not touched"
            now = memory.read(load.address, load.size)[::-1].hex() if data is not None else "not read"
            where = live.session.names.describe(registers["rip"])
            text = insn.text if insn is not None else ""
            yield (
                f"{'LOAD OF A WORD THAT DIFFERS' if seen else 'load'}: instruction {at} at {where}, {text}, "
                f"reads {load.size} bytes at {load.address:#x}: {then} then, {now} in the guest now"
            )


def _described(live: LiveKernel, word: Word) -> str:
    place = live.session.names.at(word.address)
    name = f" ({place.symbol}+{word.address - place.start:#x})" if place is not None else ""
    return f"{word.address:#x}{name}: {word.then:#x} then, {word.emulated:#x} emulated, {word.now:#x} in the guest now"
