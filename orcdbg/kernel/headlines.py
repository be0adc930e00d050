"""What does the kernel's log say that it died of, or suffers from?

The lines that announce an oops, a BUG, a WARN, a lockup or a panic, from 5.10 to 7.2: arch/x86/mm/fault.c,
arch/x86/kernel/traps.c, lib/bug.c, lib/list_debug.c, lib/refcount.c, kernel/watchdog.c, kernel/hung_task.c,
kernel/rcu/tree_stall.h, kernel/panic.c.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.kernel.log import LogRecord

_MAX_LINE = 512  # characters of a line that are looked at


class Announced(enum.Enum):
    """What a line announces."""

    PANIC = "panic"
    NULL_POINTER = "null pointer"
    PAGE_FAULT = "page fault"
    GENERAL_PROTECTION = "general protection"
    INVALID_OPCODE = "invalid opcode"
    DIVIDE_ERROR = "divide error"
    STACK_GUARD = "stack guard"
    DOUBLE_FAULT = "double fault"
    BUG = "bug"
    WARNING = "warning"
    LIST_CORRUPTION = "list corruption"
    REFCOUNT = "refcount"
    SLAB = "slab"
    SOFT_LOCKUP = "soft lockup"
    HARD_LOCKUP = "hard lockup"
    HUNG_TASK = "hung task"
    RCU_STALL = "rcu stall"
    OOM = "oom"
    MACHINE_CHECK = "machine check"


@dataclass(frozen=True, slots=True)
class Headline:
    """A line that announces something.

    Attributes:
        announced: what.
        text: the whole line, as the kernel printed it; it may hold anything.
        fields: what it names, by the names in `_LINES`.
        time: when, in ns since the boot.
        seq: of its record.
    """

    announced: Announced
    text: str
    fields: Mapping[str, str]
    time: int
    seq: int

    def number(self, name: str) -> int | None:
        """A hexadecimal number of the line; None where it has none of that name."""
        found = self.fields.get(name)
        return None if found is None else int(found, 16)


_HEX = r"(?:0x)?(?P<address>[0-9a-f]{1,16})"
# Since 6.10 (a0082f8b1e7b and its like) the die string of an exception begins with `Oops: `.
_LINES: tuple[tuple[Announced, re.Pattern[str]], ...] = tuple(
    (announced, re.compile(pattern))
    for announced, pattern in (
        (Announced.PANIC, r"Kernel panic - not syncing: (?P<message>.*)"),
        (Announced.NULL_POINTER, rf"BUG: kernel NULL pointer dereference, address: {_HEX}"),
        (Announced.PAGE_FAULT, rf"BUG: unable to handle (?:page fault for address|kernel paging request at):? {_HEX}"),
        (
            Announced.GENERAL_PROTECTION,
            rf"(?:Oops: )?general protection fault(?:, (?:probably for non-canonical|maybe for) address {_HEX})?.*:",
        ),
        (Announced.INVALID_OPCODE, r"(?:Oops: )?invalid opcode: "),
        (Announced.DIVIDE_ERROR, r"(?:Oops: )?divide error: "),
        (Announced.STACK_GUARD, rf"BUG: (?:\S+ )?stack guard page was hit at {_HEX}"),
        (Announced.DOUBLE_FAULT, r"(?:Oops: |PANIC: )?double fault"),
        (Announced.BUG, r"kernel BUG at (?P<file>\S+):(?P<line>\d+)!"),
        (Announced.WARNING, r"WARNING: (?:CPU: \d+ PID: \d+ at )?(?P<file>\S+):(?P<line>\d+)"),
        (
            Announced.LIST_CORRUPTION,
            r"(?P<what>list_add|list_del) (?:corruption|double add)\W* *(?P<rest>.*)",
        ),
        (Announced.REFCOUNT, r"refcount_t: (?P<what>.*)"),
        (Announced.SLAB, r"BUG (?P<cache>\S+) \(.*\): (?P<what>.*)"),
        (Announced.SOFT_LOCKUP, r"(?:watchdog: )?BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<seconds>\d+)s"),
        (Announced.HARD_LOCKUP, r"(?:NMI watchdog: )?(?:watchdog: )?Watchdog detected hard LOCKUP on cpu (?P<cpu>\d+)"),
        (Announced.HARD_LOCKUP, r"(?:watchdog: )?CPU(?P<cpu>\d+): Watchdog detected hard LOCKUP"),
        (
            Announced.HUNG_TASK,
            r"INFO: task (?P<comm>.{1,15}):(?P<pid>\d+) (?:is )?blocked .*?for more than (?P<seconds>\d+) seconds",
        ),
        (Announced.RCU_STALL, r"(?:rcu: )?INFO: \S+ (?:self-)?detected (?:expedited )?stalls? on CPU"),
        (Announced.OOM, r"(?P<comm>.{1,15}) invoked oom-killer"),
        (Announced.MACHINE_CHECK, r"mce: \[Hardware Error\]: (?P<what>.*)"),
    )
)


def parse_headline(text: str) -> tuple[Announced, dict[str, str]] | None:
    """What a line announces and names; None for any other line."""
    for announced, pattern in _LINES:
        found = pattern.match(text)
        if found is not None:
            return announced, {name: value for name, value in found.groupdict().items() if value is not None}
    return None


def headlines(records: Sequence[LogRecord]) -> Iterator[Headline]:
    """The announcements in a log, oldest first; what a program wrote by /dev/kmsg is none."""
    for record in records:
        if record.is_from_user_space:
            continue
        for line in record.text.split("\n"):
            text = line.strip()[:_MAX_LINE]
            found = parse_headline(text)
            if found is not None:
                yield Headline(*found[:1], text, found[1], record.time, record.seq)
