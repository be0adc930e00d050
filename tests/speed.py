"""How fast is this machine just now?

Bounds of CPU time are of a machine that does `reference_work` in REFERENCE seconds. One that is slower by itself, or beside
what else runs on it, may take as much longer: a bound is a ratio to work of this run, not a number of seconds. A faster
machine gets no less, and a check that is relative can still fail: an answer's time grows with what the answer does, the
reference's does not.
"""

from __future__ import annotations

import functools
import struct
import time

REFERENCE = 0.19
_ROUNDS = 150_000


def reference_work() -> float:
    """Seconds of CPU time for some work of the kind that an answer is made of: words unpacked, texts, tuples, a table."""
    layout = struct.Struct("<QQIi8s")
    data = bytes(range(32)) * 64
    start = time.process_time()
    found = {}
    for number in range(_ROUNDS):
        one, two, three, four, name = layout.unpack_from(data, number & 1023)
        found[number] = (one + number, f"{two:#x}", three or four, name.partition(b"\0")[0])
    return time.process_time() - start


def slowness(*seconds: float) -> float:
    """How many times slower than the reference this machine is, at least 1.

    Args:
        seconds: what `reference_work` took, before and behind what is measured.
    """
    return max(1.0, sum(seconds) / len(seconds) / REFERENCE)


@functools.cache
def slowness_of_this_run() -> float:
    """`slowness`, measured once: for limits that have to be set beforehand."""
    return slowness(reference_work())
