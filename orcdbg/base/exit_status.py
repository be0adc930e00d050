"""With which numbers does orcdbg tell scripts how it went? docs/contract.md promises them."""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    """The statuses that a process ends with, and those that errors and results carry."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNSUPPORTED = 3
    MISMATCH = 4
    FOUND_SOMETHING = 5
    INTERRUPTED = 130  # 128 and SIGINT, as shells count
    BROKEN_PIPE = 141  # 128 and SIGPIPE
