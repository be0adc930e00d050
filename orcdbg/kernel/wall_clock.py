"""Which date goes with a time since the boot began?

Mirrors kernel/time/timekeeping.c: `offs_real` is what the kernel adds to its monotonic clock.
"""

from __future__ import annotations

from orcdbg.base.errors import Corrupt
from orcdbg.kernel.linux import Linux

_LATEST = 1 << 63  # ns since 1970: the year 2262, where ktime_t ends


def timekeeper(linux: Linux) -> int:
    """Address of the kernel's `struct timekeeper`.

    Raises:
        NotFound: the kernel has none that is known here.
    """
    # timekeeper_data is what 6.18 calls it (auxiliary clocks have timekeepers too); the first one is the kernel's.
    keeper = linux.find_address("tk_core") or linux.address("timekeeper_data")
    inside = linux.types.find("tk_data", "timekeeper")
    # tk_core is {seqcount, timekeeper} up to 6.12, then a struct tk_data; lockdep makes the seqcount longer.
    return keeper + (inside.offset if inside else max(_sequence_size(linux), 8))


def _sequence_size(linux: Linux) -> int:
    """Bytes of the sequence counter in front of the timekeeper, rounded up to a word."""
    sizes = [linux.types.size(name) for name in ("seqcount_raw_spinlock", "seqcount") if linux.types.exists(name)]
    return -(-sizes[0] // 8) * 8 if sizes else 0


def boot_date(linux: Linux) -> int:
    """Nanoseconds from 1970 to the boot, by the clock as it was set last.

    Raises:
        Corrupt: that is no date.
        OrcdbgError: the clock cannot be read.
    """
    offset = linux.member("timekeeper", "offs_real", timekeeper(linux))
    if not 0 < offset < _LATEST:
        raise Corrupt(f"the wall clock's offset is {offset:#x}")
    return offset
