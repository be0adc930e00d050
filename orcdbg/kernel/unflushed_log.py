"""What did CPUs print that never came into the log: printk's own buffers of NMIs, and of code inside printk?

Mirrors kernel/printk/printk_safe.c, 4.7 to 5.14: there printk() writes into a buffer of the CPU where it must take no lock, and
work in an interrupt moves the text into the log. 5.15 does without (commit 93d102f094be). A CPU that panicked in an NMI has
the last words of the panic there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import Corrupt, MemoryFault
from orcdbg.base.reading import read_s32
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.tasks import started_cpus

_BUFFERS = ("nmi_print_seq", "safe_print_seq")
_STRUCT = "printk_safe_seq_buf"
# Of all CPUs together; one has 8 KiB (CONFIG_PRINTK_SAFE_LOG_BUF_SHIFT), false ones may all lie in one place.
MAX_TEXT = 4 << 20
_MAX_PROBLEMS = 10
# KERN_SOH and a level, or `c` of a line that goes on (include/linux/kern_levels.h).
_HEADER = re.compile(rb"\x01[0-7c]")
_DEFAULT_LEVEL = 4


@dataclass(frozen=True, slots=True)
class UnflushedLine:
    """A line that a CPU printed: `buffer` is the kernel's variable that holds it. Its time is not kept."""

    buffer: str
    cpu: int
    level: int
    text: str


def read_unflushed(linux: Linux) -> tuple[list[UnflushedLine], list[str]]:
    """The lines in the buffers of all CPUs, and a line for each buffer that cannot be read."""
    found: list[UnflushedLine] = []
    problems: list[str] = []
    members = linux.types
    if not (members.has(_STRUCT, "buffer") and members.has(_STRUCT, "len")):
        return found, problems

    budget = Budget(0, MAX_TEXT)
    for buffer, cpu in itertools.product(_BUFFERS, started_cpus(linux)):
        try:
            data = _contents(linux, buffer, cpu, budget)
        except (Corrupt, MemoryFault) as error:
            problems.append(f"{buffer} of CPU {cpu}: {error}")
            continue
        found += _lines(buffer, cpu, data)

    if len(problems) > _MAX_PROBLEMS:
        problems[_MAX_PROBLEMS:] = [f"{len(problems) - _MAX_PROBLEMS} more buffers of CPUs cannot be read"]
    return found, problems


def areas(linux: Linux) -> Iterator[tuple[int, int]]:
    """Address and size of what `read_unflushed` reads."""
    if linux.types.has(_STRUCT, "buffer"):
        for buffer, cpu in itertools.product(_BUFFERS, started_cpus(linux)):
            address = linux.per_cpu(buffer, cpu)
            if address is not None:
                yield address, linux.types.size(_STRUCT)


def _contents(linux: Linux, buffer: str, cpu: int, budget: Budget) -> bytes:
    address = linux.per_cpu(buffer, cpu)
    if address is None:
        return b""
    start = linux.types.offset(_STRUCT, "buffer")
    length = read_s32(linux.memory, address + linux.types.offset(_STRUCT, "len"))
    if not 0 <= length <= linux.types.size(_STRUCT) - start:
        raise Corrupt("a CPU's messages", f"{length} bytes of text")
    return budget.read(linux.memory, address + start, length, "a CPU's messages") if length else b""


def _lines(buffer: str, cpu: int, data: bytes) -> list[UnflushedLine]:
    """The lines of a buffer, each of the level in its header."""
    lines = []
    for line in data.split(b"\n"):
        headers = _HEADER.findall(line)
        levels = [header[1] - ord("0") for header in headers if header != b"\x01c"]
        text = _HEADER.sub(b"", line).decode("utf-8", "backslashreplace")
        if text:
            lines.append(UnflushedLine(buffer, cpu, levels[0] if levels else _DEFAULT_LEVEL, text))
    return lines
