"""Why did a run of the emulated CPU end?"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class StoppedBy(enum.Enum):
    """What ended a run; the values are the JSON contract's words."""

    COUNT = "count"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    UNSUPPORTED = "unsupported"
    FAULT = "fault"
    LIMIT = "limit"
    START = "start"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ended, and a sentence where there is more to say."""

    by: StoppedBy
    why: str | None = None


COUNT = Stop(StoppedBy.COUNT)
