"""Tasks are read with few reads, and each that cannot be read is named."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import orcdbg
from orcdbg.base.errors import MemoryFault
from orcdbg.base.reading import read_memory_pieces
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.cli.main import sample_files
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.tasks import (
    MAX_TASKS,
    Task,
    TaskReader,
    all_task_addresses,
    list_tasks,
    online_cpus,
    read_task,
    started_cpus,
)
from orcdbg.target.session import Session
from tests.build.kernel import U32, Structure, made_linux
from tests.build.memory import SparseMemory
from tests.build.sample import changed_core


def test_tasks_are_the_same_read_together_and_alone(sample: Session) -> None:
    """All members of all tasks."""
    addresses = list(all_task_addresses(sample.linux, Budget(MAX_TASKS)))
    assert list(TaskReader(sample.linux).read_all(addresses)) == [read_task(sample.linux, a) for a in addresses]
    assert len(addresses) > 20


def test_each_member_is_what_the_types_say(sample: Session) -> None:
    """Task by task, against single reads."""
    linux = sample.linux
    for task in sample.tasks:
        assert task.pid == linux.member("task_struct", "pid", task.address)
        assert task.tgid == linux.member("task_struct", "tgid", task.address)
        assert task.parent == linux.member("task_struct", "real_parent", task.address)
        assert task.stack == linux.member("task_struct", "stack", task.address)
        assert task.flags == linux.member("task_struct", "flags", task.address)
        assert task.comm == linux.text_member("task_struct", "comm", task.address)


def test_a_task_that_is_not_in_the_snapshot_is_named_and_the_others_stay(tmp_path: Path, sample: Session) -> None:
    """Dropping the page that holds the last task's pid."""
    task = sample.tasks[-1]
    place = task.address + sample.types.offset("task_struct", "pid")
    core = changed_core(tmp_path / "core", without=[sample.memory.translate(place)])
    session = orcdbg.open(sample_files()[0], core)
    tasks, problems = list_tasks(session.linux)
    missing = {one.address for one in sample.tasks} - {one.address for one in tasks}
    assert task.address in missing
    assert {problem for problem in problems if f"{task.address:#x}" in problem}
    assert set(tasks) <= set(sample.tasks)
    assert len(tasks) >= len(sample.tasks) - 3


def test_a_run_queue_that_is_not_there_costs_no_other_task(tmp_path: Path, sample: Session) -> None:
    """As in a dump that is cut off: per-CPU data lie at the end of memory, most tasks before."""
    queue = sample.linux.per_cpu("runqueues", 0)
    assert queue is not None
    place = sample.memory.translate(queue + sample.types.offset("rq", "idle"))
    session = orcdbg.open(sample_files()[0], changed_core(tmp_path / "core", without=[place]))
    tasks, problems = list_tasks(session.linux)
    assert {task.pid for task in tasks} == {task.pid for task in sample.tasks}
    assert any("the run queue of CPU 0" in problem for problem in problems)


def test_pieces_are_what_single_reads_give(sample: Session) -> None:
    """Across pages, mapped or not, canonical or not; in kernel text, per-CPU data, stacks and nowhere."""
    tasks = sample.tasks
    places = [t.address for t in tasks] + [t.stack + 16000 for t in tasks if t.stack]
    places += [sample.linux.address("_text") + 4090, 0, 8, 1 << 60, U64 - 3, U64, 0xFFFFFFFF00000000]
    places += [t.stack - 4 for t in tasks if t.stack]
    for size in (1, 8, 300, 4096, 5000):
        expected: list[bytes | None] = []
        for place in places:
            try:
                expected.append(sample.memory.read(place, size))
            except MemoryFault:
                expected.append(None)
        assert read_memory_pieces(sample.memory, places, [size] * len(places)) == expected
        assert any(expected) and not all(expected)


def test_pages_are_translated_together_as_alone(sample: Session) -> None:
    """Every page of a stretch around each stack, and of the image."""
    numbers = [t.stack // 4096 + k for t in sample.tasks if t.stack for k in range(-2, 6)]
    numbers += [sample.linux.address("_text") // 4096 + k for k in range(0, 3000, 7)]
    physical, known = sample.memory.translate_pages(np.array(numbers, dtype=np.uint64))
    for number, address, is_known in zip(numbers, physical.tolist(), known.tolist(), strict=True):
        try:
            alone: int | None = sample.memory.translate(number * 4096)
        except MemoryFault:
            alone = None
        assert alone == (address if is_known else None)
    assert known.any() and not known.all()


def test_a_task_with_noise_in_it_is_read_as_it_is(sample: Session) -> None:
    """Any bytes give a task: names are escaped, states unknown ones."""
    reader = TaskReader(sample.linux)
    noise = [bytes(range(200, 200 + 1)) * group.layout.size for group in reader._groups]
    task = reader._task(0, noise)
    assert isinstance(task, Task)
    assert task.pid == struct.unpack("<I", b"\xc8" * 4)[0]
    assert task.comm.startswith("\\xc8")


@pytest.mark.parametrize(
    ("state", "exit_state", "letters"),
    [
        (0x000, 0, "RU"),
        (0x001, 0, "IN"),
        (0x002, 0, "UN"),
        (0x402, 0, "ID"),
        (0x102, 0, "UN"),
        (0x104, 0, "ST"),
        (0x008, 0, "TR"),
        (0x040, 0, "PA"),
        (0x200, 0, "WA"),
        (0x800, 0, "NE"),
        (0x080, 0, "DE"),
        (0x080, 0x10, "DE"),
        (0x080, 0x20, "ZO"),
        (0x4000_0000, 0, "??"),
    ],
)
def test_a_state_has_the_letters_that_crash_shows(sample: Session, state: int, exit_state: int, letters: str) -> None:
    """One that is being woken, and one that has died and whose parent was told, too."""
    reader = TaskReader(sample.linux)
    groups = [bytearray(group.layout.size) for group in reader._groups]
    for name, value in (("state", state), ("exit_state", exit_state)):
        for group, data in zip(reader._groups, groups, strict=True):
            if name in group.names:
                members = list(group.layout.unpack(data))
                members[group.names.index(name)] = value
                data[:] = group.layout.pack(*members)
    task = reader._task(0, [bytes(data) for data in groups])
    assert isinstance(task, Task)
    assert task.state == letters


ONLINE, NUMBER, AREAS, HOTPLUG = 0x1000, 0x2000, 0x3000, 0x100
CPUHP_ONLINE, CPUHP_OFFLINE = 235, 0


def kernel_of_cpus(online: int, states: Sequence[int | None], with_hotplug: bool = True) -> Linux:
    """A kernel whose mask of online CPUs, and hotplug's state of each possible CPU, are these."""
    memory = SparseMemory()
    memory.put_words(ONLINE, online)
    memory.put(NUMBER, len(states).to_bytes(4, "little"))
    memory.put_words(AREAS, *(0x10000 * (cpu + 1) for cpu in range(len(states))))
    for cpu, state in enumerate(states):
        if state is not None:
            memory.put(HOTPLUG + 0x10000 * (cpu + 1), state.to_bytes(4, "little"))
    types: dict[str, Structure] = {"cpuhp_cpu_state": (4, {"state": (0, U32)})} if with_hotplug else {}
    places = {"__cpu_online_mask": ONLINE, "nr_cpu_ids": NUMBER, "__per_cpu_offset": AREAS, "cpuhp_state": HOTPLUG}
    return made_linux(memory, types or {"other": (8, {})}, {name: (place, 8) for name, place in places.items()})


@pytest.mark.parametrize(
    ("online", "states", "started"),
    [
        (0b0011, [CPUHP_ONLINE, CPUHP_ONLINE, CPUHP_OFFLINE, CPUHP_OFFLINE], [0, 1]),
        (0b0001, [CPUHP_ONLINE] * 4, [0, 1, 2, 3]),
        (0b0101, [CPUHP_ONLINE, CPUHP_OFFLINE, CPUHP_ONLINE], [0, 2]),
        (0b0001, [CPUHP_OFFLINE] * 2, [0]),
    ],
    ids=["two never came up", "a panic stopped three", "one was unplugged", "early in the boot"],
)
def test_a_cpu_that_a_panic_stopped_counts_and_one_that_is_down_does_not(
    online: int, states: list[int], started: list[int]
) -> None:
    """Neither kind is in the mask of online CPUs: hotplug's state tells them apart."""
    assert started_cpus(kernel_of_cpus(online, states)) == started


def test_where_hotplug_says_nothing_the_mask_of_online_cpus_counts() -> None:
    """Kernels without the type, and CPUs whose state is not in the snapshot."""
    stopped = [CPUHP_ONLINE, None, CPUHP_ONLINE]
    assert started_cpus(kernel_of_cpus(0b101, [CPUHP_ONLINE] * 3, with_hotplug=False)) == [0, 2]
    assert started_cpus(kernel_of_cpus(0b101, stopped)) == online_cpus(kernel_of_cpus(0b101, stopped)) == [0, 2]
