"""What is a case of damage, how is it tried, and what may come of it?

A format is a valid small file and an attempt, which reads whatever a program of ours would read of it. An attempt may
end or raise an OrcdbgError; anything else is a fault: another exception, a false assertion about what was read, 10 s
of CPU time. A fact is an answer together with the bytes that it rests on: a damaged file in which these are whole
gives that answer, or none.
"""

from __future__ import annotations

import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from orcdbg.base.errors import OrcdbgError
from tests.speed import slowness_of_this_run

SECONDS, MEMORY = 10, 1 << 30
# Values that break parsers: none, one, the largest of each size, powers of two, just below them.
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, 1 << 63, (1 << 64) - 1)


class TooSlow(Exception):
    """A case took longer than it may."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: a valid one, where its headers are, and what is to be tried with any bytes."""

    whole: bytes
    regions: Sequence[tuple[int, int]]
    attempt: Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Fact:
    """What is asked of a file, and [start, end) of all bytes that the answer rests on."""

    ask: Callable[[bytes], object]
    rests_on: Sequence[tuple[int, int]]


def judged(whole: bytes, facts: Sequence[Fact], attempt: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The attempt, and after it the facts."""
    truths = [fact.ask(whole) for fact in facts]

    def attempt_and_judge(data: bytes) -> None:
        for fact, truth in zip(facts, truths, strict=True):
            if all(data[start:end] == whole[start:end] for start, end in fact.rests_on):
                try:
                    answer = fact.ask(data)
                except OrcdbgError:
                    continue
                assert answer == truth, f"{answer!r}, not {truth!r}"
        attempt(data)

    return attempt_and_judge


def asked(*questions: Callable[[], object]) -> None:
    """Asks all of them, whatever errors of ours come, and raises the last of these."""
    last: OrcdbgError | None = None
    for question in questions:
        try:
            question()
        except OrcdbgError as error:
            last = error
    if last is not None:
        raise last


def damaged(form: Format, chance: random.Random) -> bytes:
    """The file with one to four pieces of damage, mostly in its headers."""
    data = bytearray(form.whole)
    for _ in range(chance.randint(1, 4)):
        low, high = chance.choice([*form.regions, (0, len(data))])
        at = chance.randrange(low, max(low + 1, min(high, len(data))))
        size = chance.choice((1, 2, 4, 8))
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + 1] = chance.randbytes(1)
        elif kind == 1:
            data[at : at + size] = (chance.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")
        elif kind == 2:
            data[at : at + size] = b""
        elif kind == 3:
            data[at:at] = chance.randbytes(size)
        elif kind == 4:
            start = chance.randrange(len(form.whole))
            data[at : at + 2 * size] = form.whole[start : start + 2 * size]
        elif chance.random() < 0.2:
            del data[at:]
    return bytes(data)


def _alarm(number: int, frame: FrameType | None) -> None:
    raise TooSlow(f"more than {SECONDS * slowness_of_this_run():.1f} s")


@contextmanager
def clock() -> Iterator[None]:
    """Raises TooSlow in what takes more CPU time than a case may; what else the machine does is left out of account."""
    signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, SECONDS * slowness_of_this_run())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def try_cases(
    name: str, form: Format, make: Callable[[Format, random.Random], bytes], count: int, seed: int
) -> tuple[Counter[str], list[str]]:
    """Tries `count` damaged files of a format: how often each ending came, and what was wrong."""
    form.attempt(form.whole)
    endings: Counter[str] = Counter()
    wrong: list[str] = []
    for case in range(count):
        data = make(form, random.Random(f"{name} {seed} {case}"))
        try:
            with clock():
                form.attempt(data)
            endings["answers"] += 1
        except OrcdbgError as error:
            endings[type(error).__name__] += 1
        except Exception as error:
            endings["wrong"] += 1
            wrong.append(f"{name} seed {seed} case {case}: {error!r}\n{traceback.format_exc(limit=-4)}")
    return endings, wrong
