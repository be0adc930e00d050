"""How long does a program take, and how much memory?"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.scenes import Scene
from tests.measured import run_measured

RUNS = 9


@dataclass(frozen=True, slots=True)
class Measurement:
    """Medians over the runs of one command: seconds of wall time and of the CPU's, MiB of peak memory."""

    seconds: float
    mebibytes: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.seconds:7.3f} s ({self.cpu:.3f} s of CPU) {self.mebibytes:6.1f} MiB"


def run_once(words: list[str]) -> Measurement:
    """One process."""
    found = run_measured(words)
    if found.status:
        raise SystemExit(f"exit status {found.status}: {' '.join(words)}")
    return Measurement(found.seconds, found.mebibytes, found.cpu)


def medians(found: Sequence[Measurement]) -> Measurement:
    """Of each number its own."""
    return Measurement(
        statistics.median(one.seconds for one in found),
        statistics.median(one.mebibytes for one in found),
        statistics.median(one.cpu for one in found),
    )


def compare(ours: list[str], theirs: list[str]) -> tuple[Measurement, Measurement]:
    """Medians of both, run in turn so that a drift of the machine's speed meets both; one run each to warm the page cache."""
    run_once(ours), run_once(theirs)
    pairs = [(run_once(ours), run_once(theirs)) for _ in range(RUNS)]
    return medians([ours for ours, _ in pairs]), medians([theirs for _, theirs in pairs])


def measure(words: list[str], runs: int) -> Measurement:
    """Medians of one command."""
    return medians([run_once(words) for _ in range(runs)])


def ratio(ours: Measurement, theirs: Measurement) -> str:
    """How ours compares."""
    times = f"{ours.seconds / theirs.seconds:.3f} time, {ours.cpu / theirs.cpu:.3f} CPU"
    return f"{times}, {ours.mebibytes / theirs.mebibytes:.2f} memory"


def debuggers(scene: Scene) -> tuple[list[str], list[str]]:
    """Both debuggers with the scene's files; what to ask is to be added."""
    folder = Path(sys.executable).parent
    vmlinux, snapshot = str(scene.vmlinux), str(scene.snapshot)
    return [sys.executable, "-m", "orcdbg", vmlinux, snapshot, "-e"], [
        str(folder / "drgn"), "-q", "-c", snapshot, "-s", vmlinux, "-e"
    ]  # fmt: skip
