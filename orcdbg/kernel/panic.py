"""Which CPU panicked?"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_s32
from orcdbg.kernel.linux import Linux


def panic_cpu(linux: Linux) -> int | None:
    """The CPU that panicked, or None. See panic() of kernel/panic.c, and __crash_kexec() for the second name."""
    for name in ("panic_cpu", "crashing_cpu"):
        try:
            address = linux.find_address(name)
            cpu = -1 if address is None else read_s32(linux.memory, address)
        except MemoryFault:
            continue
        if 0 <= cpu < linux.cpu_limit():
            return cpu
    return None
