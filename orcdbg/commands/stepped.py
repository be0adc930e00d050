"""What do the commands that step answer with, before it becomes text or JSON?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.commands.results import Instruction
from orcdbg.emulation.stops import StoppedBy
from orcdbg.unwind.frame import Frame, StackTrace


@dataclass(frozen=True, slots=True)
class Place:
    """Where the CPU stood before an instruction.

    `changed` are the registers that the instruction changed or, where nothing was run after it, those that changed on the
    way here. `same_callers` is False where the frames above are not those of the line before.
    """

    instruction: Instruction
    frame: Frame
    caller: Frame | None
    changed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Boundary:
    """An instruction boundary in one text of a site: bytes pushed since its start (None if unknown), and the CFA rule."""

    address: int
    offset: int
    pushed: int | None
    rule: str | None


@dataclass(frozen=True, slots=True)
class VersionRun:
    """One text of a site, run from the state before it to its end, `why` it did not get there if it did not."""

    name: str
    text: bytes
    instructions: Sequence[str]
    boundaries: Sequence[Boundary]
    executed: int
    registers: Mapping[str, int] | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A site as it ran and as it was asked for; `differing` are the registers that are not the same at its end."""

    site: int
    size: int
    symbol: str | None
    mechanisms: Sequence[str]
    patched: VersionRun
    other: VersionRun
    differing: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Steps:
    """What was run, and where the CPU stands now.

    `instructions` is how many this command ran, `position` how many since the start.
    The last place of `trace` is where the CPU stands. `source` says where the registers at the start were from, `zeroed`
    which of them were taken as 0, `skipped` which instructions were gone past.
    """

    stopped_by: StoppedBy
    why: str | None
    instructions: int
    position: int
    trace: Sequence[Place]
    registers: Mapping[str, int]
    stack: StackTrace
    source: str
    zeroed: Sequence[str] = ()
    skipped: Sequence[tuple[int, str]] = ()
    comparison: Comparison | None = None
    traced: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """Words of the stack from the stack pointer up, with the names of those that are addresses of code."""

    address: int
    words: Sequence[tuple[int, str | None]]


@dataclass(frozen=True, slots=True)
class Context:
    """One screen: where the CPU stands, the code around it, registers, stack, callers."""

    place: Place
    code: Sequence[Instruction]
    registers: Mapping[str, int]
    stack: Stack
    trace: StackTrace
    position: int


@dataclass(frozen=True, slots=True)
class Stops:
    """Breakpoints and watched memory, numbered from 1: address, size (0 for a breakpoint) and symbol."""

    stops: Sequence[tuple[int, int, int, str | None]]
