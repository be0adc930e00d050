"""How sure is what is said of a dead kernel?"""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Certainty(enum.Enum):
    """The values are the JSON contract's words."""

    FACT = "fact"  # memory says so
    DERIVED = "derived"  # it follows from memory by a rule that the kernel keeps
    HYPOTHESIS = "hypothesis"  # it agrees with memory, and so may something else


_WEAKNESS = tuple(Certainty)


def weakest(certainties: Iterable[Certainty]) -> Certainty:
    """How sure is what needs all of these: as the least of them; a FACT where there are none."""
    return max(certainties, key=_WEAKNESS.index, default=Certainty.FACT)
