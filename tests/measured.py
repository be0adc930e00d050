"""What did a process cost: how long did it run, for how much of the CPU's time, and how much memory did it need?

A child's peak of memory counts from before its exec, when it was still its parent's copy; a parent with a few sessions
open would be what is measured. So a small process stands between, which starts the one that is meant and reports on it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_BETWEEN = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
found = os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss, usage.ru_utime + usage.ru_stime
os.write(int(sys.argv[1]), json.dumps(found).encode())
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: exit status (negative: the signal), seconds of wall time and of the CPU's, MiB of peak memory."""

    status: int
    seconds: float
    mebibytes: float
    cpu: float


def run_measured(words: Sequence[str]) -> Measured:
    """Runs a program without input; what it prints is thrown away."""
    reader, writer = os.pipe()
    with open(reader, encoding="ascii") as report:
        nothing = subprocess.DEVNULL
        between = [sys.executable, "-I", "-S", "-c", _BETWEEN, str(writer), *words]
        with subprocess.Popen(between, pass_fds=[writer], stdin=nothing, stdout=nothing, stderr=nothing):
            os.close(writer)
            status, seconds, kibibytes, cpu = json.loads(report.read())
    return Measured(status, seconds, kibibytes / 1024, cpu)
