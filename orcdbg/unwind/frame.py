"""What is known of one stack frame, and of a whole stack?"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.reasons import Reason
from orcdbg.kernel.names import Location
from orcdbg.kernel.ret_stack import Tracer
from orcdbg.kernel.stacks import StackKind
from orcdbg.orc.effective import PatchEffect, Source
from orcdbg.orc.rows import RowType
from orcdbg.orc.table import OrcEntry


class RegisterValue(NamedTuple):
    """A register's value and where it came from, in words."""

    value: int
    source: str


Registers = Mapping[str, RegisterValue]

# The functions in which a new task begins.
NEW_TASK = ("ret_from_fork", "ret_from_fork_asm")


class FrameKind(enum.Enum):
    """How a frame was come to; the values are the JSON contract's words."""

    CALL = "call"
    INTERRUPT = "interrupt"
    INTERRUPT_PARTIAL = "interrupt-partial"  # only the CPU's five words were saved
    USER = "user"


class End(enum.Enum):
    """How a stack ends; the values are the JSON contract's words."""

    STOPPED = "stopped"
    USER = "user"
    KTHREAD = "kthread"
    IDLE = "idle"
    BOOT = "boot"


class Mark(enum.Enum):
    """How sure a frame is; the values are what stands in column 0."""

    AS_BUILT = " "  # sure: row and return slot as the build made them
    CHANGED = "~"  # sure, but by a corrected or derived rule, or by a return address that a tracer had replaced
    GUESS = "?"  # something speaks against the step that led here, or the frame was found by looking over the stack
    STEP_IN_DOUBT = (
        "!"  # the way here was sure, but the rule in this frame is not, or what it led to cannot be its caller
    )

    @property
    def is_sure(self) -> bool:
        """True where nothing is in doubt: neither the way to the frame nor its own step."""
        return self in (Mark.AS_BUILT, Mark.CHANGED)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A return address that the kernel had rewritten, taken from where it keeps the true one.

    Attributes:
        by: what had rewritten it.
        trampoline: what it was rewritten to.
        callee: an address in the function that was to return there, by the tracer's record; None where that does not say.
        has_returned: True where that function has returned already, and the trampoline runs.
    """

    by: Tracer
    trampoline: int
    callee: int | None = None
    has_returned: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. Frame 0 is innermost.

    `exact` is True when `ip` is no return address, but interrupted, or what the CPU is about to go to; `location` is then of
    `ip`, else of `ip - 1`. `is_behind_int3` tells an ip that a breakpoint saved: the instruction at `ip - 1`, which the int3
    stands for, is not run yet. `came_from` is the stack slot this frame's own ip was read from, `return_slot` the one its
    caller's ip was read from. `doubt` is set on every frame that may be wrong, or whose own step to the caller may be.
    """

    index: int
    kind: FrameKind
    stack: StackKind
    ip: int
    exact: bool
    location: Location | None
    registers: Registers
    came_from: int | None = None
    cfa: int | None = None
    rule: str | None = None
    source: Source = Source.NONE
    entry: OrcEntry | None = None
    patch: PatchEffect | None = None
    return_slot: int | None = None
    recovered: Recovered | None = None
    reliable: bool = True
    doubt: Reason | None = None
    notes: tuple[Reason, ...] = ()
    is_behind_int3: bool = False

    @property
    def looked_up(self) -> tuple[int, bool]:
        """The ip whose state the frame is in, and whether it is exact: behind an int3, the state before that instruction."""
        return (self.ip - 1, True) if self.is_behind_int3 else (self.ip, self.exact)

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
    def row_type(self) -> RowType | None:
        """What the row as built says of the code; None without a row."""
        return None if self.entry is None else self.entry.row.type

    @property
    def is_trusted(self) -> bool:
        """True where nothing is in doubt so far, as in `mark.is_sure`: a walk goes on from the frame without a doubt."""
        return self.reliable and self.doubt is None

    @property
    def is_corrected(self) -> bool:
        """True where the rule is the row's, moved for a patch."""
        return self.patch is not None and self.patch.adjust != 0

    @property
    def mark(self) -> Mark:
        """How sure the frame is."""
        if not self.reliable:
            return Mark.GUESS
        if self.doubt is not None:
            return Mark.STEP_IN_DOUBT
        is_changed = self.recovered is not None or self.is_corrected or self.source.is_derived
        return Mark.CHANGED if is_changed else Mark.AS_BUILT


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
    end: End
    end_reason: Reason | None = None
