"""What does this run look at? Its seed draws some of what is dear, so that a run is short and many runs see everything.

`ORCDBG_LAB_SEED` repeats a draw, `ORCDBG_LAB_CAMPAIGN` (seconds for each load of each kernel) makes the campaign whole.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

from tests.lab.failures import SEED_VARIABLE
from tests.lab.fetch import RELEASES

T = TypeVar("T")

KERNELS = tuple(RELEASES)
SEED = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(1_000_000))
BOOTS_VARIABLE = "ORCDBG_LAB_BOOTS"
CAMPAIGN_VARIABLE = "ORCDBG_LAB_CAMPAIGN"

IS_ALL = os.environ.get(BOOTS_VARIABLE) == "all"
CAMPAIGN_SECONDS = float(os.environ.get(CAMPAIGN_VARIABLE) or 0)


def draw(what: str, choices: Sequence[T], count: int) -> list[T]:
    """So many of the choices, drawn by this run's seed, in their order; all where a run is to look at all of them.

    Draws of different names do not depend on each other, so that a new one leaves the others as they were.
    """
    if IS_ALL or count >= len(choices):
        return list(choices)
    chosen = random.Random(f"{SEED} {what}").sample(range(len(choices)), count)
    return [choices[number] for number in sorted(chosen)]
