"""Where do runs stop: breakpoints and watched memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.commands.result import Result


@dataclass(frozen=True, slots=True)
class Stops(Result):
    """Breakpoints and watched memory, numbered from 1: address, size (0 for a breakpoint) and symbol."""

    stops: Sequence[tuple[int, int, int, str | None]]
