"""Damaged lists of the sample, some hundred in each run; `python -m tests.damaged_links` takes more, and other snapshots."""

from __future__ import annotations

import random

from orcdbg.target.session import Session
from tests.damaged_links import run


def test_a_damaged_link_is_told(sample: Session) -> None:
    """Wherever other nodes are reached than before, there is a problem, or nothing could tell; of any seed."""
    seed = random.SystemRandom().randrange(1 << 32)
    tally = run(sample, 400, random.Random(seed))
    assert tally.silent == [], f"seed {seed}"
    assert sum(tally.told.values()) > 300
