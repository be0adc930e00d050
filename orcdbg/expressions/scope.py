"""What besides the kernel's own names may an expression speak of?

Locals, registers and remembered values belong to whoever evaluates, who selects frames and counts answers; this layer only
asks for them.
"""

from __future__ import annotations

from typing import Protocol

from orcdbg.base.errors import NotFound, UsageError
from orcdbg.typed.objects import Object


class Scope(Protocol):
    """The names of a selected frame, and of earlier answers."""

    def find_local(self, name: str) -> Object | None:
        """The local variable or argument of that name in the selected frame; None where it has none.

        One that was optimised away is an object that says why it cannot be read.
        """

    def register(self, name: str) -> Object:
        """A register of the selected frame, by its name without `$`; NotFound where there is none of that name."""

    def recalled(self, word: str) -> Object:
        """An earlier value, by `$`, `$$`, `$$2`, `$3` or `$_`; NotFound where there is none yet."""

    def this_cpu(self) -> int:
        """The CPU that per-CPU variables without a number are of; UsageError where nobody says which."""


class NoScope:
    """Nothing is selected, and nothing was said before."""

    def find_local(self, name: str) -> Object | None:
        """There is no frame."""
        return None

    def register(self, name: str) -> Object:
        """There is no frame."""
        raise NotFound("register", f"${name}", "no frame is selected")

    def recalled(self, word: str) -> Object:
        """There is no history."""
        raise NotFound("earlier value", word)

    def this_cpu(self) -> int:
        """There is no task."""
        raise UsageError("no CPU is selected", "name it: per_cpu(VARIABLE, CPU)")
