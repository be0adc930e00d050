"""What did a process that has a share of the run's tests count, for the end of the whole run?"""

from __future__ import annotations

import pickle

from tests.lab import deaths, tallies
from tests.lab.damage import Account
from tests.lab.tallies import Tally


def packed(has_guests: bool) -> bytes:
    """What this process counted, and whether any of its tests had a guest."""
    return pickle.dumps((has_guests, deaths.DEATHS, tallies.TALLIES, tallies.DAMAGE))


def unpack(data: bytes) -> bool:
    """Adds what another process of this run `packed` to what this one counted; whether it had guests."""
    has_guests, died, tallied, damaged = pickle.loads(data)
    deaths.DEATHS.extend(died)
    for name, tally in tallied.items():
        tallies.TALLIES.setdefault(name, Tally()).add(tally)
    for name, account in damaged.items():
        tallies.DAMAGE.setdefault(name, Account()).add(account)
    return bool(has_guests)
