"""What does this run look at? Its seed draws some of what is dear, so that a run is short and many runs see everything.

`ORCDBG_LAB_SEED` repeats a draw, `ORCDBG_LAB_KERNELS=all` runs tests on all kernels that are drawn otherwise, and
`ORCDBG_LAB_CAMPAIGN` (seconds for each load of each kernel) makes the campaign whole.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tests.lab.failures import SEED_VARIABLE
from tests.lab.fetch import RELEASES

T = TypeVar("T")

KERNELS = tuple(RELEASES)
SEED = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(1_000_000))
# The processes that a run shares its tests out to look at what this one drew.
os.environ[SEED_VARIABLE] = str(SEED)
BOOTS_VARIABLE = "ORCDBG_LAB_BOOTS"
CAMPAIGN_VARIABLE = "ORCDBG_LAB_CAMPAIGN"

KERNELS_VARIABLE = "ORCDBG_LAB_KERNELS"

# Dear tests whose subject differs little from kernel to kernel, and on how many kernels a run has them.
KERNELS_DRAWN = {
    "journal": 2,
    "QEMU's kdump": 2,
    "source lines": 2,
    "gdb": 2,
    "trimming": 2,
    "memory": 2,
    "words of crash": 2,
    "local variables": 2,
    "DWARF types": 2,
    "traces": 2,
    "arguments": 2,
    "own driver": 2,
    "waits": 1,
    "a running kernel": 1,
    "crash after a panic": 1,
    "types without .BTF": 1,
    "text in the middle of a change": 1,
    "no ORC tables": 1,
}

# Of the kinds of Xen's first domain, `xen.CASES`, so many are booted.
DOM0_DRAWN = 1

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


def kernels_of(what: str) -> list[str]:
    """The kernels on which this run has the tests of `what`."""
    count = len(KERNELS) if os.environ.get(KERNELS_VARIABLE) == "all" else KERNELS_DRAWN[what]
    return draw(f"kernels of {what}", KERNELS, count)


def account_of_draws() -> Iterator[str]:
    """The lines for the run's head."""
    drawn = "; ".join(f"{what} on {', '.join(kernels_of(what))}" for what in KERNELS_DRAWN)
    yield f"lab kernels: {drawn}; all other tests on {', '.join(KERNELS)} (all with {KERNELS_VARIABLE}=all)"
