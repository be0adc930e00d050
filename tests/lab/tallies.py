"""What did this run's stops and damaged words come to, by kernel and load?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.lab.damage import Account


@dataclass
class Tally:
    """What was looked at, and what came of it."""

    stops: int = 0
    walks: int = 0
    frames: int = 0
    sure: int = 0
    true_in_doubt: int = 0
    judged: int = 0
    returned: int = 0  # by steps, to where the first walk said
    waited: int = 0
    seen: int = 0
    asleep: int = 0  # stacks of tasks that had not run since, found the same
    to_user: int = 0
    doubts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    damage: Account = field(default_factory=Account)

    def add(self, other: Tally) -> None:
        """Counts what another has."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.doubts += other.doubts
        self.kinds += other.kinds
        self.damage.add(other.damage)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield ", ".join(f"{getattr(self, name)} {name.replace('_', ' ')}" for name in COUNTS)
        rate = 100 * (self.frames - self.sure) / max(self.frames, 1)
        of_true = 100 * self.true_in_doubt / max(self.judged, 1)
        yield f"in doubt: {rate:.3f}% of all frames shown, {of_true:.3f}% of those known to be true"
        yield f"kinds of stops: {dict(self.kinds)}"
        yield f"doubts: {dict(self.doubts.most_common(12))}"


COUNTS = (
    *("stops", "walks", "frames", "sure", "judged", "true_in_doubt", "returned", "waited", "seen", "asleep", "to_user"),
)


# Of this run.
TALLIES: dict[str, Tally] = {}
DAMAGE: dict[str, Account] = {}


def account_of_campaign() -> Iterator[str]:
    """The lines for the run's end, none where nothing was stopped or damaged."""
    total, damage = Tally(), Account()
    for name, tally in TALLIES.items():
        yield from (f"{name}: {line}" for line in tally.lines())
        total.add(tally)
    for account in (*DAMAGE.values(), total.damage):
        damage.add(account)
    if TALLIES:
        yield from (f"all: {line}" for line in total.lines())
    if damage.words:
        yield from damage.lines()
