"""How do time and memory compare with drgn's, in one run on one snapshot? Prints medians and ratios; asserts nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stepping
from benchmarks.dumps import ranges
from tests.lab.apt import Unavailable
from tests.lab.scenes import Scene, idle

RUNS = 9
KERNEL, AUDITED = "6.1", "6.12"
ALL_TASKS = """
from drgn.helpers.linux.pid import for_each_task
for task in for_each_task(prog):
    try:
        print(prog.stack_trace(task))
    except Exception as error:
        print(error)
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Medians over the runs of one command: seconds of wall time, MiB of peak memory."""

    seconds: float
    mebibytes: float


def run_once(words: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MiB of one process."""
    start = time.perf_counter()
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {' '.join(words)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def compare(ours: list[str], theirs: list[str]) -> tuple[Measurement, Measurement]:
    """Medians of both, run in turn so that a drift of the machine's speed meets both; one run each to warm the page cache."""
    run_once(ours), run_once(theirs)
    pairs = [(run_once(ours), run_once(theirs)) for _ in range(RUNS)]
    columns = [[pair[side][what] for pair in pairs] for side in (0, 1) for what in (0, 1)]
    medians = [statistics.median(column) for column in columns]
    return Measurement(*medians[:2]), Measurement(*medians[2:])


def report(what: str, ours: Measurement, theirs: Measurement, peer: str = "drgn") -> None:
    """One line."""
    print(
        f"{what:<34} orcdbg {ours.seconds:6.3f} s {ours.mebibytes:6.1f} MiB   {peer} {theirs.seconds:6.3f} s "
        f"{theirs.mebibytes:6.1f} MiB   ratio {ours.seconds / theirs.seconds:.2f} time, "
        f"{ours.mebibytes / theirs.mebibytes:.2f} memory"
    )


def commands(scene: Scene) -> tuple[list[str], list[str]]:
    """Both debuggers with the scene's files; what to ask is to be added."""
    folder = Path(sys.executable).parent
    vmlinux, snapshot = str(scene.vmlinux), str(scene.snapshot)
    return [str(folder / "orcdbg"), vmlinux, snapshot, "-e"], [
        str(folder / "drgn"), "-q", "-c", snapshot, "-s", vmlinux, "-e"
    ]  # fmt: skip


def compare_dumps(scene: Scene, pid: int) -> None:
    """A compressed dump of a scene against the ELF core of it, and read whole against drgn with libkdumpfile."""
    with tempfile.TemporaryDirectory() as folder:
        dump, places = Path(folder) / "kdump", Path(folder) / "places"
        # In a process of its own: its memory would count as that of the processes that are measured.
        run_once([sys.executable, "-m", "benchmarks.dumps", "write", str(scene.snapshot), str(dump)])
        places.write_text("".join(f"{start} {end}\n" for start, end in ranges(str(dump))))
        ask = [sys.executable, "-m", "orcdbg", str(scene.vmlinux)]
        packed, plain = compare([*ask, str(dump), "-e", f"bt {pid}"], [*ask, str(scene.snapshot), "-e", f"bt {pid}"])
        report(f"{KERNEL}: bt of one task, kdump to ELF", packed, plain, "ELF")
        read = [sys.executable, "-m", "benchmarks.dumps"]
        both = compare([*read, "orcdbg", str(dump), str(places)], [*read, "drgn", str(dump), str(places)])
        report(f"{KERNEL}: all memory of a zlib kdump", *both)


def main() -> int:
    """Runs the comparisons, or says what is missing."""
    if not Path(sys.executable).with_name("drgn").exists():
        print("benchmarks need drgn (pip install '.[lab]')", file=sys.stderr)
        return 1
    try:
        small, large = idle(KERNEL, 0), idle(AUDITED, 0)
    except Unavailable as error:
        print(f"benchmarks need the lab's snapshots: {error}", file=sys.stderr)
        return 1
    pid = sorted(small.stacks)[-1]
    ours, theirs = commands(small)
    one_task = compare([*ours, f"bt {pid}"], [*theirs, f"print(prog.stack_trace({pid}))"])
    report(f"{KERNEL}: open and bt of one task", *one_task)
    report(f"{KERNEL}: open and bt of every task", *compare([*ours, "foreach bt"], [*theirs, ALL_TASKS]))
    compare_dumps(small, pid)
    ours, theirs = commands(large)
    report(f"{AUDITED}: full audit, drgn only opens", *compare([*ours, "patch audit"], [*theirs, "pass"]))
    stepping.report(small, KERNEL)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
