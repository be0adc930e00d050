"""How long do crash's words take: a value, an address, a long list, a search, all tasks, and the first prompt?"""

from __future__ import annotations

import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import orcdbg
from benchmarks.runs import Measurement, compare, measure, ratio
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Registry
from orcdbg.commands.result import Result
from orcdbg.commands.standard import standard_commands
from orcdbg.formats.elf import ElfFile
from orcdbg.image.vmlinux import open_source
from orcdbg.target.session import Session
from orcdbg.views.as_json import encode
from orcdbg.views.as_text import text_pieces
from tests.lab.crowd import THREADS, crowd
from tests.lab.scenes import Scene

CROWD = "6.12"
ROUNDS, RUNS = 5, 5
ONE_SECONDS, LIST_SECONDS, PS_SECONDS = 0.03, 2.0, 1.5
SEARCH_SPEED = 1e9  # bytes in a second
NODES, STRIDE, ORDER = 100_000, 64, 10
# The program of an older orcdbg, whose first prompt is the limit of ours.
BASE_VARIABLE = "ORCDBG_BENCHMARK_BASE"


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of wall time and of the CPU's: the second is what a machine takes that has nothing else to do."""

    seconds: float
    cpu: float


def timed(registry: Registry, debugger: Debugger, line: str) -> tuple[Timed, Result]:
    """One command with its whole text, and its answer."""
    begin, cpu = time.perf_counter(), time.process_time()
    answer = registry.run(debugger, line)
    for _ in text_pieces(answer, None):
        pass
    return Timed(time.perf_counter() - begin, time.process_time() - cpu), answer


def median(found: Iterable[Timed]) -> Timed:
    """Of both its own."""
    all_of_them = list(found)
    return Timed(
        statistics.median(one.seconds for one in all_of_them), statistics.median(one.cpu for one in all_of_them)
    )


def row(what: str, one: Timed | Measurement, limit: float, first: Timed | None = None) -> None:
    """One line."""
    before = f"   the first {first.seconds:6.3f} s" if first is not None else ""
    times = f"{one.seconds * 1e3:9.2f} ms ({one.cpu * 1e3:.2f} ms of CPU)"
    print(f"{what:<44} {times}   ratio to {limit:g} s {one.seconds / limit:.2f}, CPU {one.cpu / limit:.2f}{before}")


def opened(scene: Scene, snapshot: Path | None = None) -> tuple[Registry, Debugger]:
    """A session over a scene, or over another snapshot of its kernel, as at the prompt."""
    return standard_commands(), Debugger(orcdbg.open(str(scene.vmlinux), str(snapshot or scene.snapshot)))


def single_answers(scene: Scene, kernel: str) -> None:
    """`p` and `kmem` of many things after the first: none is asked for twice."""
    registry, debugger = opened(scene)
    tasks = [f"{task.address:x}" for task in debugger.session.tasks]
    for what, lines in {
        "p": [f"p *(struct task_struct *)0x{task}" for task in tasks],
        "kmem ADDR": [f"kmem {task}" for task in tasks],
    }.items():
        first, *others = (timed(registry, debugger, line)[0] for line in lines)
        row(f"{kernel}: {what}, the median of {len(others)}", median(others), ONE_SECONDS, first)
        row("  the slowest", max(others, key=lambda one: one.cpu), ONE_SECONDS)


def free_memory(registry: Registry, debugger: Debugger, size: int) -> list[int]:
    """Physical addresses of free blocks of 4 MiB that hold so many bytes."""
    found = []
    session = debugger.session
    pages, size_of_page = int(session.variable("vmemmap_base")), session.program.type("struct page").size
    for node in encode(registry.run(debugger, "kmem -F"))["nodes"]:
        for zone in node["zones"]:
            lists: dict[str, list[str]] = next((one["lists"] for one in zone["free"] if one["order"] == ORDER), {})
            found += [(int(page, 16) - pages) // size_of_page * 4096 for kind in lists.values() for page in kind]
    wanted = -(-size // (4096 << ORDER))
    if len(found) < wanted:
        raise SystemExit("the scene has too little free memory for a list")
    return found[:wanted]


def with_list(session: Session, scene: Scene, blocks: list[int], snapshot: Path) -> int:
    """Writes a list of NODES nodes, each elsewhere in free memory, into a copy of a scene's core; its head's address."""
    offset = int(session.variable("page_offset_base"))
    places = [block + at for block in blocks for at in range(0, 4096 << ORDER, STRIDE)][: NODES + 1]
    Random(0).shuffle(places)
    shutil.copyfile(scene.snapshot, snapshot)
    segments = [one for one in ElfFile(open_source(str(snapshot))).segments if one.type == 1]
    with snapshot.open("r+b") as file:
        for number, place in enumerate(places):
            after, before = places[(number + 1) % len(places)], places[number - 1]
            segment = next(one for one in segments if one.physical <= place < one.physical + one.file_size)
            file.seek(segment.offset + place - segment.physical)
            file.write(struct.pack("<QQ", offset + after, offset + before))
    return offset + places[0]


def long_list(scene: Scene, kernel: str) -> None:
    """A list that is made in the free memory of a real snapshot, in no order."""
    registry, debugger = opened(scene)
    blocks = free_memory(registry, debugger, (NODES + 1) * STRIDE)
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder, "core")
        head = with_list(debugger.session, scene, blocks, snapshot)
        for what, line in {
            "list -H": f"list -H {head:x}",
            "list -H -s, a member of each": f"list -H {head:x} -o list_head.next -s list_head.prev",
        }.items():
            registry, debugger = opened(scene, snapshot)
            seconds, answer = timed(registry, debugger, line)
            assert len(encode(answer)["nodes"]) == NODES
            row(f"{kernel}: {what}, {NODES} nodes", seconds, LIST_SECONDS)


def searches(scene: Scene) -> None:
    """All memory of an ELF core in the page cache, for a value that is rare and a text."""
    registry, debugger = opened(scene)
    scene.snapshot.read_bytes()
    size = scene.snapshot.stat().st_size
    rare = f"{debugger.session.tasks[1].address:x}"
    for what, line in {
        "search -p VALUE": f"search -p {rare}",
        "search -k VALUE": f"search -k {rare}",
        "search -p -c TEXT": "search -p -c 'Kernel panic - not'",
    }.items():
        first, *others = (timed(registry, debugger, line)[0] for _ in range(ROUNDS))
        row(f"{scene.kernel}: {what}, {size / 1e9:.2f} GB", median(others), size / SEARCH_SPEED, first)


def tasks_of_a_crowd(scene: Scene) -> None:
    """`ps` of a process of its own, from its start to its end, and after the first."""
    words = [sys.executable, "-m", "orcdbg", str(scene.vmlinux), str(scene.snapshot)]
    whole = measure([*words, "-e", "ps"], RUNS)
    nothing = measure([*words, "-e", "context"], RUNS)
    registry, debugger = opened(scene)
    first, *others = (timed(registry, debugger, "ps")[0] for _ in range(ROUNDS))
    row(f"{scene.kernel}: ps of {THREADS} tasks", median(others), PS_SECONDS, first)
    row("  the whole process", whole, PS_SECONDS)
    print(f"  the process of another word: {nothing}")


def first_prompt(scene: Scene, kernel: str) -> None:
    """A process that opens a snapshot and ends at its first prompt, beside an older orcdbg where one is named."""
    files = [str(scene.vmlinux), str(scene.snapshot), "-e", "quit"]
    program = [str(Path(sys.executable).with_name("orcdbg")), *files]
    base = os.environ.get(BASE_VARIABLE)
    if base is None:
        print(f"{kernel}: opened, first prompt, ended: {measure(program, RUNS)}")
        print(f"  beside no older one: {BASE_VARIABLE} names the program of one")
        return
    ours, theirs = compare(program, [base, *files])
    print(f"{kernel}: opened, first prompt, ended: {ours}")
    print(f"  the older one: {theirs}   ratio {ratio(ours, theirs)} (limit 1)")


def report(scene: Scene, kernel: str) -> None:
    """All of them."""
    single_answers(scene, kernel)
    long_list(scene, kernel)
    first_prompt(scene, kernel)
    many = crowd(CROWD)
    searches(many)
    tasks_of_a_crowd(many)
