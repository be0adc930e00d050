"""What do the stacks of twenty thousand threads cost, beside crash and drgn; and what a snapshot 16 times larger?"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from pathlib import Path

from benchmarks.runs import Measurement, compare, debuggers, measure, ratio
from tests.lab.crowd import THREADS, crowd
from tests.lab.scenes import Scene

KERNEL = "5.10"  # the only one of the lab's whose tasks crash 8.0.2, Debian 12's, can list
OUR_RUNS, THEIR_RUNS = 5, 1
TIMES_LARGER = 16
ALL_TASKS = """
from drgn.helpers.linux.pid import for_each_task
for task in for_each_task(prog):
    try:
        print(prog.stack_trace(task))
    except Exception as error:
        print(error)
"""


def stacks_of_a_crowd() -> None:
    """`foreach bt` into a file, as text and as JSON, and the same of the others; each line with its target."""
    scene = crowd(KERNEL)
    ours, theirs = debuggers(scene)
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/stacks"
        text = measure([*ours, f"foreach bt > {out}"], OUR_RUNS)
        frames = sum(line.lstrip(" ~?!").startswith("#") for line in Path(out).read_text("utf-8").splitlines())
        json = measure([*ours[:-1], "--format", "json", "-e", f"foreach bt > {out}"], OUR_RUNS)
        groups = measure([*ours, f"foreach bt --group > {out}"], OUR_RUNS)
        tasks = measure([*ours, f"ps > {out}"], OUR_RUNS)
        print(f"{KERNEL}, {THREADS} threads asleep in four places, {frames} frames of the kernel:")
        for what, one in (("foreach bt", text), ("  as JSON", json), ("  --group", groups), ("ps", tasks)):
            print(f"  orcdbg {what:<12} {one}")
        print(f"  peak memory target 400 MiB: {max(text.mebibytes, json.mebibytes):.0f}")
        _against("drgn", text, measure([*theirs, ALL_TASKS], THEIR_RUNS), 0.05)
        if shutil.which("crash") is None:
            print("  crash is not installed here")
            return
        commands = Path(folder, "commands")
        commands.write_text(f"foreach bt > {out}\nquit\n", encoding="ascii")
        crash = ["crash", "-s", "-i", str(commands), str(scene.vmlinux), str(scene.snapshot)]
        _against("crash", text, measure(crash, THEIR_RUNS), 0.3)


def _against(name: str, ours: Measurement, theirs: Measurement, target: float) -> None:
    print(f"  {name:<19} {theirs}   ratio {ratio(ours, theirs)} (target {target} time)")


def larger_snapshot(scene: Scene) -> None:
    """Opening and one stack: a snapshot, and the same with 15 times as much memory behind it."""
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, "large")
        enlarge(scene.snapshot, large, TIMES_LARGER)
        ours, _ = debuggers(scene)
        pid = sorted(scene.stacks)[-1]
        small_words = [*ours, f"bt {pid}"]
        large_words = [str(large) if word == str(scene.snapshot) else word for word in small_words]
        larger, smaller = compare(large_words, small_words)
    print(f"{scene.kernel}: a snapshot {TIMES_LARGER} times larger, opened and one stack: {larger}")
    print(f"  as it is {smaller}   ratio {ratio(larger, smaller)} (target 1.2 time)")


def enlarge(small: Path, large: Path, times: int) -> None:
    """Copies an ELF core, with one more segment of zeros, a hole in the file, that makes it `times` as large."""
    shutil.copyfile(small, large)
    with large.open("r+b") as file:
        header = bytearray(file.read(64))
        place, count = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<H", header, 56)[0]
        file.seek(place)
        segments = file.read(56 * count)
        file.seek(0, os.SEEK_END)
        size = file.tell()
        table = -(-size // 4096) * 4096
        data, length = table + 4096, (times - 1) * size
        where = 1 << 40  # beyond all memory that such a guest can have
        file.seek(table)
        file.write(segments + struct.pack("<IIQQQQQQ", 1, 6, data, where, where, length, length, 0))
        file.truncate(data + length)
        struct.pack_into("<Q", header, 32, table)
        struct.pack_into("<H", header, 56, count + 1)
        file.seek(0)
        file.write(header)
