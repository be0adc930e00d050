"""context: one screen of what is stepped."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.emulated_steps import current
from orcdbg.commands.instructions import ListedInstruction
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.steps import SteppedPlace
from orcdbg.unwind.frame import StackTrace

_STACK_WORDS = 12


@dataclass(frozen=True, slots=True)
class StackWords:
    """Words of the stack from the stack pointer up, with the names of those that are addresses of code."""

    address: int
    words: Sequence[tuple[int, str | None]]


@dataclass(frozen=True, slots=True)
class Context(Result):
    """One screen: where the CPU stands, the code around it, registers, stack, callers."""

    place: SteppedPlace
    code: Sequence[ListedInstruction]
    registers: Mapping[str, int]
    stack: StackWords
    trace: StackTrace
    position: int


@command(
    "context",
    summary="show code, registers, stack and callers where stepping stands",
    group="stepping",
    effect=Effect.NONE,
)
def context(debugger: Debugger, arguments: argparse.Namespace) -> Context:
    """Answers with where the emulated CPU stands, and what changed since the last time."""
    emulation = current(debugger)
    trace, registers = emulation.trace(), emulation.emulator.registers()
    changed = emulation.changes(emulation.shown)
    emulation.shown = registers
    words: list[tuple[int, str | None]] = []
    try:
        for at in range(registers["rsp"], registers["rsp"] + 8 * _STACK_WORDS, 8):
            word = int.from_bytes(emulation.emulator.memory.read(at, 8), "little")
            words.append((word, debugger.session.names.describe(word) if debugger.session.is_text(word) else None))
    except MemoryFault:
        pass  # the stack ends here
    place, code = emulation.place(changed, trace), emulation.around(4, 6)
    return Context(place, code, registers, StackWords(registers["rsp"], words), trace, emulation.emulator.executed)
