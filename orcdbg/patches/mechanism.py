"""How does a mechanism's file say what it is: its name, the tables of its places, and how its passes are made?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orcdbg.patches.build import Build
from orcdbg.patches.site import PatchPass

Make = Callable[[Build, Sequence[PatchPass]], Sequence[PatchPass]]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One way in which the kernel patches its own text, as the file of that name in `mechanisms/` declares it.

    `orcdbg/patches/replay.py` has all of them, in the order in which the kernel runs them.

    Attributes:
        name: as `patch list --mechanism` and the JSON contract have it. Two tables of one mechanism are two of these, of one
            name, so that damage to one of the tables does not cost the other.
        make: makes the passes over one text, the kernel's or that of a section of a module; none where the text has no such
            table. The second argument are the passes that were made before, in the kernel's order, for a mechanism that
            depends on what others wrote; most leave it alone. It may raise `Undecidable` or an `OrcdbgError` where the table
            cannot be read: the rest is replayed all the same, and the reason is a problem of the audit.
        tables: names of the sections of an image that record the places; empty where none does.
        moves_stack: whether its instructions may move the stack pointer otherwise than the text as built, so that a walk
            must know its places.
    """

    name: str
    make: Make
    tables: tuple[str, ...] = ()
    moves_stack: bool = False
