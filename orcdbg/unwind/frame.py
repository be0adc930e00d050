"""What is known of one stack frame, and of a whole stack?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.kernel.names import Location
from orcdbg.orc.overlay import PatchEffect
from orcdbg.orc.table import OrcEntry


class RegisterValue(NamedTuple):
    """A register's value and where it came from, in words."""

    value: int
    source: str


Registers = Mapping[str, RegisterValue]


OVERFLOWED = "the stack pointer is in the guard page below the stack, which has overflowed"  # one of a frame's notes
# Sources of rules that are not the row as built.
DERIVED = ("trampoline", "frame-pointer", "dwarf", "instructions")


@dataclass(frozen=True, slots=True)
class Recovered:
    """A return address that the kernel had rewritten, taken from where it keeps the true one."""

    by: str
    trampoline: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. Frame 0 is innermost.

    `kind`, `stack`, `rule`, `source` and `reliable` are as in the JSON contract. `exact` is True when `ip` is an
    interrupted address and not a return address; `location` is then of `ip`, else of `ip - 1`. `came_from` is the stack
    slot this frame's own ip was read from, `return_slot` the one its caller's ip was read from. `doubt` is set on every frame
    that may be wrong, or whose own step to the caller may be.
    """

    index: int
    kind: str
    stack: str
    ip: int
    exact: bool
    location: Location | None
    registers: Registers
    came_from: int | None = None
    cfa: int | None = None
    rule: str | None = None
    source: str = "none"
    entry: OrcEntry | None = None
    patch: PatchEffect | None = None
    return_slot: int | None = None
    recovered: Recovered | None = None
    reliable: bool = True
    doubt: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def sp(self) -> int:
        """The stack pointer in this frame."""
        return self.registers["rsp"].value

    @property
    def bp(self) -> int | None:
        """rbp in this frame, None where it is not known."""
        found = self.registers.get("rbp")
        return None if found is None else found.value

    @property
    def mark(self) -> str:
        """Column 0: blank as built, `~` not by row and return slot as built, `?` a guess, `!` a contradiction."""
        if not self.reliable:
            return "?"
        if self.doubt:
            return "!"
        corrected = self.recovered is not None or (self.patch is not None and self.patch.adjust)
        return "~" if corrected or self.source in DERIVED else " "


@dataclass(frozen=True, slots=True)
class StackTrace:
    """A walked stack: whose, from which registers, its frames, and how it ended.

    `frames` is a tuple, or makes each frame when it is looked at and equals the tuple (`SharedFrames`).
    """

    task: int
    pid: int
    comm: str
    cpu: int | None
    running: bool
    registers_from: str
    frames: Sequence[Frame]
    end: str
    end_reason: str | None = None
