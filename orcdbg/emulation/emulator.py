"""What would this CPU do from here, instruction by instruction, forwards and backwards?

Long runs go block by block: the emulator is asked before each block whether all in it may be run, and only blocks where
something is to happen are gone through one instruction at a time. Backwards is forwards again from a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.emulation.engine import DEFAULT_PAGES, Engine, Fault, OutOfFrames
from orcdbg.emulation.pages import Page
from orcdbg.emulation.refusals import refusal
from orcdbg.emulation.stops import COUNT, Stop, StoppedBy
from orcdbg.x86.instructions import Instruction, decode_one

CHECKPOINT_EVERY = 10_000
MAX_CHECKPOINTS = 64
_CLOCK_EVERY = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an emulation may go: pages of memory touched in all, instructions and seconds in one command."""

    pages: int = DEFAULT_PAGES
    instructions: int = 10_000_000
    seconds: float = 20.0


@dataclass(slots=True)
class _Checkpoint:
    """A state to come back to; `journal` undoes what was written between it and the next one."""

    executed: int
    registers: dict[str, int]
    journal: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Block:
    """The instructions of a block; `safe` where all of them may be run."""

    addresses: tuple[int, ...]
    members: frozenset[int]
    safe: bool
    repeats: bool


class Emulator:
    """A CPU that runs on from given registers over a stopped kernel's memory, which it never writes.

    Args:
        page: the kernel's memory by pages.
        is_text: which addresses are code.
        registers: all of `engine.REGISTERS`.
        gs_base: address of the CPU's own data.
        limits: how far it may go.
        words: what 64-bit words of memory hold before the first instruction, by address.
    """

    def __init__(
        self,
        page: Callable[[int], Page],
        is_text: Callable[[int], bool],
        registers: Mapping[str, int],
        gs_base: int,
        limits: Limits | None = None,
        words: Mapping[int, int] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.memory = Engine(page, is_text, gs_base, self.limits.pages)
        self.memory.set_registers(registers)
        for address, word in (words or {}).items():
            self.memory.poke(address, word.to_bytes(8, "little"))
        self.ip = registers["rip"]
        self.executed = 0
        self._instructions: dict[int, Instruction | None] = {}
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._careful = 0
        self._skipped: dict[int, int] = {}  # where to, by position
        self._checkpoints = [_Checkpoint(0, self.registers())]

    def registers(self) -> dict[str, int]:
        """All registers as they are now."""
        return {**self.memory.registers(), "rip": self.ip}

    def instruction(self, address: int) -> Instruction | None:
        """The instruction at an address; None where there is none, or its bytes are not known."""
        if address not in self._instructions:
            self._instructions[address] = self._decoded(address)
        return self._instructions[address]

    def _decoded(self, address: int) -> Instruction | None:
        raw = b""
        for size in (15, -address % PAGE):
            try:
                raw = self.memory.read(address, size)
                break
            except MemoryFault:
                continue
        insn = decode_one(raw, address) if raw else None
        if insn is None or any(start < insn.end and address < end for start, end in self.memory.unknown):
            return None
        return insn

    def refused(self, address: int) -> str | None:
        """Why the instruction at an address is not run, or None."""
        insn = self.instruction(address)
        if insn is not None:
            why = refusal(insn)
            return None if why is None else f"{insn.text}: {why}"
        try:
            raw = self.memory.read(address, 1)
        except MemoryFault as error:
            return f"the instruction at {address:#x} cannot be read: {error}"
        return f"no known instruction at {address:#x} (first byte {raw.hex()})"

    def step(self) -> Stop | None:
        """Runs one instruction (of a repeated one: one repetition); None when that went well."""
        why = self.refused(self.ip)
        if why is not None:
            return Stop(StoppedBy.UNSUPPORTED, why)
        self._checkpoint_if_due()
        try:
            self.memory.step(self.ip)
        except (Fault, OutOfFrames) as error:
            return self._failed(error)
        except KeyboardInterrupt:
            self._restore()
            raise
        registers = self.memory.registers()
        self.executed += 1
        if registers["rip"] == self.ip and registers["rcx"] == 0 and self._repeats(self.ip):
            # A CPU goes on from the last repetition to the next instruction; unicorn comes by once more for that.
            self.memory.step(self.ip)
            registers = self.memory.registers()
        self.ip = registers["rip"]
        return None

    def _repeats(self, address: int) -> bool:
        insn = self.instruction(address)
        return insn is not None and insn.mnemonic.startswith("rep")

    def _failed(self, error: OrcdbgError) -> Stop:
        if isinstance(error, OutOfFrames):
            return Stop(StoppedBy.LIMIT, str(error))
        insn = self.instruction(self.ip)
        text = insn.text if insn else f"{self.ip:#x}"
        unknown = isinstance(error, Fault) and error.unknown
        return Stop(StoppedBy.UNSUPPORTED if unknown else StoppedBy.FAULT, f"{text}: {error}")

    def run(self, count: int, until: Collection[int] = (), deadline: float | None = None) -> Stop:
        """Runs `count` instructions, or up to one of the addresses `until`; the instruction it begins with is run anyway.

        Args:
            count: at most `limits.instructions` of them.
            until: where to stop.
            deadline: a time of `time.monotonic`; without it the limit of seconds begins now.
        """
        most, late = self.limits.instructions, time.monotonic() + self.limits.seconds
        stop = self._run(min(count, most), frozenset(until), late if deadline is None else deadline)
        return stop if stop != COUNT or count <= most else Stop(StoppedBy.LIMIT, f"more than {most} instructions")

    def _run(self, count: int, wanted: frozenset[int], deadline: float) -> Stop:
        first, goal = self.executed, self.executed + count
        self._careful = 1
        while self.executed < goal:
            if self.ip in wanted and self.executed > first:
                return Stop(StoppedBy.BREAKPOINT)
            if time.monotonic() > deadline:
                return Stop(StoppedBy.LIMIT, f"more than {self.limits.seconds:g} s")
            if self._careful:
                stop = self.step()
                self._careful -= 1
            else:
                stop = self._run_blocks(goal, wanted, deadline)
            if stop is not None:
                return stop
        return Stop(StoppedBy.BREAKPOINT) if self.ip in wanted and self.executed > first else COUNT

    def _run_blocks(self, goal: int, wanted: frozenset[int], deadline: float) -> Stop | None:
        """Runs whole blocks up to one that must be gone through with care, or a checkpoint, or the deadline."""
        self._checkpoint_if_due()
        due = self._checkpoints[-1].executed + CHECKPOINT_EVERY
        current, asked = self._block(self.ip, 1), 0

        def before(address: int, size: int) -> bool:
            nonlocal current, asked
            block = self._block(address, size)
            if block.repeats and address == current.addresses[-1] and self.memory.register("rcx") == 0:
                return True  # only goes on behind the last repetition, see `step`
            count, asked = len(block.addresses), asked + 1
            is_late = asked % _CLOCK_EVERY == 0 and time.monotonic() > deadline
            careful = not block.safe or self.executed + count > goal or not wanted.isdisjoint(block.members)
            if careful or is_late or self.executed >= due:
                self.ip, self._careful = address, count if careful else 0
                return False
            self.executed += count
            current = block
            return True

        try:
            self.memory.run(self.ip, before)
        except (Fault, OutOfFrames) as error:
            self.ip = self.memory.registers()["rip"]
            if self.ip in current.members:
                self.executed -= len(current.addresses) - current.addresses.index(self.ip)
            return self._failed(error)
        except KeyboardInterrupt:
            self._restore()
            raise
        return None

    def _block(self, address: int, size: int) -> _Block:
        key = (address, size)
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = self._look_over(address, size)
        return found

    def _look_over(self, address: int, size: int) -> _Block:
        """The instructions of a block, up to one that is refused."""
        at, addresses = address, list[int]()
        while at < address + size:
            insn = self.instruction(at)
            addresses.append(at)
            if insn is None or refusal(insn) is not None:
                return _Block(tuple(addresses), frozenset(addresses), False, False)
            at = insn.end
        return _Block(tuple(addresses), frozenset(addresses), True, self._repeats(address))

    def skip(self) -> str | None:
        """Goes past an instruction that is not run, as if it did nothing, and gives its text; None where it has no length.

        It counts as one executed.
        """
        insn = self.instruction(self.ip)
        if insn is None:
            return None
        self._skipped[self.executed] = insn.end
        self._go_past(insn.end)
        return insn.text

    def _go_past(self, end: int) -> None:
        self.ip = end
        self.executed += 1

    def _checkpoint_if_due(self) -> None:
        if self.executed - self._checkpoints[-1].executed >= CHECKPOINT_EVERY:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """Keeps this state to come back to; of too many, every other is given up."""
        self._checkpoints[-1].journal = self.memory.take_journal()
        self._checkpoints.append(_Checkpoint(self.executed, self.registers()))
        if len(self._checkpoints) > MAX_CHECKPOINTS:
            kept = self._checkpoints[::2]
            for one, dropped in zip(kept, self._checkpoints[1::2], strict=False):
                one.journal = {**dropped.journal, **one.journal}
            self._checkpoints = kept

    def _restore(self) -> None:
        """Goes back to the last checkpoint; also after Ctrl-C, which leaves the emulator between two instructions."""
        self.memory.put_back(self.memory.take_journal())
        found = self._checkpoints[-1]
        found.journal = {}
        self.memory.set_registers(found.registers)
        self.ip, self.executed = found.registers["rip"], found.executed

    def back(self, count: int) -> Stop:
        """Goes back `count` instructions, at most to where the emulation began."""
        target = max(self.executed - count, 0)
        end = COUNT if target == self.executed - count else Stop(StoppedBy.START, "this is where the emulation began")
        self._restore()
        while len(self._checkpoints) > 1 and self._checkpoints[-1].executed > target:
            self._checkpoints.pop()
            self.memory.put_back(self._checkpoints[-1].journal)
            self._restore()
        self._skipped = {at: past for at, past in self._skipped.items() if at < target}
        while self.executed < target:
            stop = self._run(target - self.executed, frozenset(), time.monotonic() + self.limits.seconds)
            if stop.by is StoppedBy.UNSUPPORTED and self.executed in self._skipped:
                self._go_past(self._skipped[self.executed])
            elif stop.by is not StoppedBy.COUNT:
                return stop
        return end
