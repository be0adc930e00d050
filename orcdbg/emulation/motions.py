"""How do a debugger's words (next, until, finish, break, watch) become runs of an emulator?"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from orcdbg.base.errors import MemoryFault
from orcdbg.emulation.emulator import Emulator
from orcdbg.emulation.stops import COUNT, Stop, StoppedBy

Word = bytes | None
Always = Callable[[], bool]


class Motions:
    """An emulator with breakpoints and watched memory.

    `breakpoints` are addresses, `watches` (address, size) pairs. With `observe` set, it is called before each
    instruction. `skipped` collects the texts of instructions that were gone past because `skip` was set. The emulator's
    limits hold for each of `run`, `next` and `finish` as a whole.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.breakpoints: set[int] = set()
        self.watches: list[tuple[int, int]] = []
        self.observe: Callable[[], None] | None = None
        self.skip = False
        self.skipped: list[tuple[int, str]] = []
        self._deadline = 0.0
        self._last = 0

    def run(self, count: int, until: Collection[int] = (), when: Always | None = None) -> Stop:
        """Runs `count` instructions, or up to a breakpoint, or up to one of `until` at which `when` says yes."""
        self._begin()
        return self._go(count, until, when)

    def _begin(self) -> None:
        """From here on the limits count."""
        limits = self.emulator.limits
        self._deadline, self._last = time.monotonic() + limits.seconds, self.emulator.executed + limits.instructions

    def _go(self, count: int, until: Collection[int] = (), when: Always | None = None) -> Stop:
        goal, wanted = self.emulator.executed + count, {*self.breakpoints, *until}
        end = min(goal, self._last)
        while self.emulator.executed < end:
            stop = self._run(end - self.emulator.executed, wanted)
            if stop == COUNT:
                break
            if stop.by is StoppedBy.UNSUPPORTED and self.skip:
                ip, text = self.emulator.ip, self.emulator.skip()
                if text is not None:
                    self.skipped.append((ip, text))
                    continue
            if stop.by is not StoppedBy.BREAKPOINT or self.emulator.ip in self.breakpoints or when is None or when():
                return stop
        return (
            COUNT
            if end == goal
            else Stop(StoppedBy.LIMIT, f"more than {self.emulator.limits.instructions} instructions")
        )

    def _run(self, count: int, wanted: Collection[int]) -> Stop:
        if self.observe is None and not self.watches:
            return self.emulator.run(count, wanted, self._deadline)
        return self._watched(count, wanted)

    def _watched(self, count: int, wanted: Collection[int]) -> Stop:
        """One instruction after another, looking at what is watched after each."""
        emulator, before = self.emulator, self._values()
        for done in range(count):
            if done and emulator.ip in wanted:
                return Stop(StoppedBy.BREAKPOINT)
            if time.monotonic() > self._deadline:
                return Stop(StoppedBy.LIMIT, f"more than {emulator.limits.seconds:g} s")
            if self.observe is not None:
                self.observe()
            stop = emulator.step()
            if stop is not None:
                return stop
            after = self._values()
            if after != before:
                return Stop(StoppedBy.WATCHPOINT, self._change(before, after))
        return Stop(StoppedBy.BREAKPOINT) if emulator.ip in wanted else COUNT

    def _values(self) -> list[Word]:
        return [self._value(address, size) for address, size in self.watches]

    def _value(self, address: int, size: int) -> Word:
        try:
            return self.emulator.memory.read(address, size)
        except MemoryFault:
            return None

    def _change(self, before: list[Word], after: list[Word]) -> str:
        for (address, _), old, new in zip(self.watches, before, after, strict=True):
            if old != new and old is not None and new is not None:
                return f"{address:#x} changed from {old[::-1].hex()} to {new[::-1].hex()}"
        return "what is watched changed"

    def next(self, count: int) -> Stop:
        """Runs `count` instructions, where a call with all that it does counts as one, and so does a repeated one."""
        self._begin()
        for _ in range(count):
            emulator = self.emulator
            insn, sp = emulator.instruction(emulator.ip), emulator.registers()["rsp"]
            if insn is None or not (insn.is_call or insn.mnemonic.startswith("rep")):
                stop = self._go(1)
                if stop != COUNT or emulator.ip in self.breakpoints:
                    return stop if stop != COUNT else Stop(StoppedBy.BREAKPOINT)
                continue
            stop = self._go(emulator.limits.instructions + 1, {insn.end}, lambda sp=sp: self._sp() >= sp)  # type: ignore[misc]
            if stop.by is not StoppedBy.BREAKPOINT or emulator.ip != insn.end or insn.end in self.breakpoints:
                return stop
        return COUNT

    def _sp(self) -> int:
        return self.emulator.registers()["rsp"]

    def finish(self, caller: int, cfa: int) -> Stop:
        """Runs until the function returns to `caller` with the stack pointer at `cfa`, or above."""
        stop = self.run(self.emulator.limits.instructions + 1, {caller}, lambda: self._sp() >= cfa)
        is_there = stop.by is StoppedBy.BREAKPOINT and self.emulator.ip == caller and self._sp() >= cfa
        return Stop(StoppedBy.BREAKPOINT, "the function has returned") if is_there else stop
