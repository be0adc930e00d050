"""How do time and memory compare with drgn's, in one run on one snapshot? Prints medians and ratios; asserts nothing."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import stepping
from benchmarks.crowd import ALL_TASKS, larger_snapshot, stacks_of_a_crowd
from benchmarks.dumps import ranges
from benchmarks.runs import Measurement, compare, debuggers, run_once
from tests.lab.apt import Unavailable
from tests.lab.guest import GuestError
from tests.lab.scenes import Scene, idle

KERNEL, AUDITED = "6.1", "6.12"


def report(what: str, ours: Measurement, theirs: Measurement, peer: str = "drgn") -> None:
    """One line."""
    print(
        f"{what:<34} orcdbg {ours.seconds:6.3f} s {ours.mebibytes:6.1f} MiB   {peer} {theirs.seconds:6.3f} s "
        f"{theirs.mebibytes:6.1f} MiB   ratio {ours.seconds / theirs.seconds:.2f} time, "
        f"{ours.mebibytes / theirs.mebibytes:.2f} memory"
    )


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
    ours, theirs = debuggers(small)
    one_task = compare([*ours, f"bt {pid}"], [*theirs, f"print(prog.stack_trace({pid}))"])
    report(f"{KERNEL}: open and bt of one task", *one_task)
    report(f"{KERNEL}: open and bt of every task", *compare([*ours, "foreach bt"], [*theirs, ALL_TASKS]))
    compare_dumps(small, pid)
    ours, theirs = debuggers(large)
    report(f"{AUDITED}: full audit, drgn only opens", *compare([*ours, "patch audit"], [*theirs, "pass"]))
    stepping.report(small, KERNEL)
    larger_snapshot(small)
    try:
        stacks_of_a_crowd()
    except (Unavailable, GuestError) as error:
        print(f"no crowd of threads: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
