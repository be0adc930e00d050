"""Which CPU runs which task, and which of the recorded registers are its?"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orcdbg.base.errors import NotInSnapshot
from orcdbg.snapshot.machine import CpuState
from orcdbg.target.session import Session
from orcdbg.unwind.starts import tasks_on_cpus

OFFSETS, MASK, NUMBER, TASKS = 0x1000, 0x2000, 0x3000, 0x4000
STRIDE = 0xFFFF_8880_0000_0000


class Kernel:
    """A kernel that says of each CPU what it runs, and which CPUs are online."""

    types = SimpleNamespace()

    def __init__(self, tasks: list[int], online: int, offsets: list[int] | None = None) -> None:
        self._tasks, self._online = tasks, online
        self._offsets = offsets or [STRIDE * (cpu + 1) & (1 << 64) - 1 | 1 << 63 for cpu in range(len(tasks))]
        self.memory = self

    def cpu_limit(self) -> int:
        """As many as there are tasks."""
        return len(self._tasks)

    def per_cpu(self, name: str, cpu: int) -> int | None:
        """Where a CPU says what it runs."""
        return TASKS + 8 * cpu if name == "current_task" else None

    def per_cpu_offset(self, cpu: int) -> int:
        """The base of its data."""
        return self._offsets[cpu]

    def find_address(self, name: str) -> int | None:
        """The mask's, and nothing else's."""
        return MASK if name == "__cpu_online_mask" else None

    def read(self, address: int, size: int) -> bytes:
        """The mask, or what a CPU runs."""
        if address == MASK:
            return self._online.to_bytes(size, "little")
        if not TASKS <= address < TASKS + 8 * len(self._tasks):
            raise NotInSnapshot("virtual", address, size)
        return self._tasks[(address - TASKS) // 8].to_bytes(size, "little")


def running(kernel: Kernel, *bases: int | None) -> dict[int, tuple[int, int | None]]:
    """Of each task its CPU, and the number of the note whose registers are taken for its."""
    cpus = [CpuState(n, f"note {n}", {"rsp": 0, "cs": 16}, n + 1, 1, 1, 1, base) for n, base in enumerate(bases)]
    found = tasks_on_cpus(cast("Any", kernel), cpus)
    return {task: (cpu, None if state is None else state.cpu) for task, (cpu, state) in found.items()}


@pytest.mark.parametrize(("online", "cpu"), [(1, 0), (4, 2), (0, 0)])
def test_a_task_runs_on_one_cpu(online: int, cpu: int) -> None:
    """Where all CPUs' areas are still one, the first task runs on the CPU that is online."""
    assert running(Kernel([7, 7, 7], online), None, None, None) == {7: (cpu, cpu)}


def test_notes_are_told_by_the_base_of_the_cpus_own_data() -> None:
    """A capture kernel's first CPU is the one that crashed; what stands in the old kernel is not this one's."""
    kernel = Kernel([7, 8], 3)
    first, second = kernel.per_cpu_offset(0), kernel.per_cpu_offset(1)
    assert running(kernel, first, second) == {7: (0, 0), 8: (1, 1)}
    assert running(kernel, second, first) == {7: (0, 1), 8: (1, 0)}
    other = first + 0x1000
    assert running(kernel, other, first) == {7: (0, 1), 8: (1, None)}
    assert running(Kernel([7], 1, [first]), other, first) == {7: (0, 1)}


def test_in_user_mode_the_order_of_the_notes_counts() -> None:
    """The base is the user's then, unless another CPU is known to have that number."""
    kernel = Kernel([7, 8], 3)
    assert running(kernel, 0x7FFF_0000, 0) == {7: (0, 0), 8: (1, 1)}
    assert running(kernel, 0x7FFF_0000, kernel.per_cpu_offset(0)) == {7: (0, 1), 8: (1, None)}


def test_registers_of_another_kernel_are_not_taken_for_this_ones(sample: Session) -> None:
    """The sample, its note behind one of a CPU that stands elsewhere: the same stack as ever."""
    (own,) = sample.snapshot.cpus
    other = replace(own, gs_base=0xFFFF_8880_1234_0000, registers={**own.registers, "rip": own.registers["rip"] - 64})
    cpus = (replace(other, cpu=0), replace(own, cpu=1))
    session = Session(sample.image, replace(sample.snapshot, cpus=cpus))
    (task,) = session.unwinder.running
    known = sample.unwinder.trace(sample.task(task))
    assert [f.ip for f in session.unwinder.trace(session.task(task)).frames] == [f.ip for f in known.frames]
