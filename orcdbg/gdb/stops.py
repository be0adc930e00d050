"""Why did a live guest stop, and by what can it be stopped?"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class BreakKind(enum.Enum):
    """What a breakpoint or watchpoint waits for; the values are the remote protocol's numbers."""

    SOFTWARE = b"0"
    HARDWARE = b"1"
    WRITE = b"2"
    READ = b"3"
    ACCESS = b"4"

    @property
    def is_of_code(self) -> bool:
        """True for a breakpoint, which the CPU must step off before it runs on."""
        return self in (BreakKind.SOFTWARE, BreakKind.HARDWARE)


class StopReason(enum.Enum):
    """Why a guest stopped; the values are the JSON contract's words."""

    STEP = "step"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    INTERRUPT = "interrupt"
    SIGNAL = "signal"  # another than those of the reasons above, with its number


@dataclass(frozen=True, slots=True)
class GuestStop:
    """Why and where the machine stopped.

    `ip` is exact; `watched` is the address of the data of a watchpoint, `signal` the number of a signal.
    """

    reason: StopReason
    cpu: int
    ip: int
    watched: int | None = None
    signal: int | None = None
