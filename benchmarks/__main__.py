"""How do time and memory compare with drgn's, in one run on one snapshot? Prints medians and ratios; asserts nothing."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import readers, stepping, words
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


def compare_tasks(scene: Scene) -> None:
    """Opening a snapshot with one stack, and with all."""
    ours, theirs = debuggers(scene)
    pid = any_pid(scene)
    one_task = compare([*ours, f"bt {pid}"], [*theirs, f"print(prog.stack_trace({pid}))"])
    report(f"{KERNEL}: open and bt of one task", *one_task)
    report(f"{KERNEL}: open and bt of every task", *compare([*ours, "foreach bt"], [*theirs, ALL_TASKS]))


def any_pid(scene: Scene) -> int:
    """A task that slept when the snapshot was taken."""
    return sorted(scene.stacks)[-1]


def compare_audit() -> None:
    """A full audit of patched text, which nobody else does."""
    ours, theirs = debuggers(idle(AUDITED, 0))
    report(f"{AUDITED}: full audit, drgn only opens", *compare([*ours, "patch audit"], [*theirs, "pass"]))


PARTS: dict[str, Callable[[Scene], None]] = {
    "tasks": compare_tasks,
    "dumps": lambda scene: compare_dumps(scene, any_pid(scene)),
    "audit": lambda scene: compare_audit(),
    "stepping": lambda scene: stepping.report(scene, KERNEL),
    "words": lambda scene: words.report(scene, KERNEL),
    "readers": lambda scene: readers.report(scene, KERNEL),
    "larger": larger_snapshot,
    "crowd": lambda scene: stacks_of_a_crowd(),
}


def main() -> int:
    """Runs the comparisons, or says what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these of {', '.join(PARTS)}")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    if not Path(sys.executable).with_name("drgn").exists():
        print("benchmarks need drgn (pip install '.[lab]')", file=sys.stderr)
        return 1
    try:
        small = idle(KERNEL, 0)
        for part in chosen:
            PARTS[part](small)
    except (Unavailable, GuestError) as error:
        print(f"benchmarks need the lab's snapshots: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
