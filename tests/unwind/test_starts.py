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

    types = SimpleNamespace(has=lambda *path: False)
    first_task, first_task_cpu = 7, 0

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
        """The mask's, and the first task's."""
        return {"__cpu_online_mask": MASK, "init_task": self.first_task}.get(name)

    def member(self, struct: str, path: str, address: int) -> int:
        """No task has a stack."""
        assert (struct, path) == ("task_struct", "stack")
        return 0

    def first_member(self, struct: str, paths: tuple[str, ...], address: int) -> int | None:
        """The CPU that the first task says it is on."""
        assert (struct, paths, address) == ("task_struct", ("thread_info.cpu", "cpu"), self.first_task)
        return self.first_task_cpu

    def read(self, address: int, size: int) -> bytes:
        """The mask, or what a CPU runs."""
        if address == MASK:
            return self._online.to_bytes(size, "little")
        if not TASKS <= address < TASKS + 8 * len(self._tasks):
            raise NotInSnapshot("virtual", address, size)
        return self._tasks[(address - TASKS) // 8].to_bytes(size, "little")


def running(
    kernel: Kernel, *bases: int | None, cs: int = 16, kernel_bases: tuple[int | None, ...] = ()
) -> dict[int, tuple[int, int | None]]:
    """Of each task its CPU, and the number of the note whose registers are taken for its."""
    cpus = [CpuState(n, f"note {n}", {"rsp": 0, "cs": cs}, n + 1, 1, 1, 1, base) for n, base in enumerate(bases)]
    if kernel_bases:
        cpus = [replace(state, kernel_gs_base=base) for state, base in zip(cpus, kernel_bases, strict=True)]
    found = tasks_on_cpus(cast("Any", kernel), cpus)
    return {task: (cpu, None if state is None else state.cpu) for task, (cpu, state) in found.items()}


@pytest.mark.parametrize(("online", "cpu"), [(1, 0), (4, 2), (0, 0)])
def test_a_task_runs_on_one_cpu(online: int, cpu: int) -> None:
    """Where all CPUs' areas are still one, the first task runs on the CPU that is online."""
    kernel = Kernel([7, 7, 7], online)
    kernel.first_task_cpu = cpu
    assert running(kernel, None, None, None) == {7: (cpu, cpu)}
    kernel.first_task = 9
    assert running(kernel, None, None, None) == {7: (cpu, cpu)}


def test_a_cpu_that_never_started_runs_nothing() -> None:
    """The image says of every CPU that it runs the first task; this one's own word is that it is on another."""
    assert running(Kernel([8, 7, 7], 1), None) == {8: (0, 0)}
    assert running(Kernel([7, 7, 8], 5), None, None, None) == {7: (0, 0), 8: (2, 2)}


def test_a_cpu_that_a_panic_stopped_still_runs_its_task() -> None:
    """It is offline by then; the task names it."""
    kernel = Kernel([8, 7], 1)
    kernel.first_task_cpu = 1
    assert running(kernel, None, None) == {8: (0, 0), 7: (1, 1)}


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


def test_a_program_that_sets_its_own_base_moves_no_registers() -> None:
    """wrgsbase may set it to another CPU's data, or to nothing; in user mode the kernel's base is the other one."""
    kernel = Kernel([7, 8], 3)
    first, second = kernel.per_cpu_offset(0), kernel.per_cpu_offset(1)
    right = {7: (0, 0), 8: (1, 1)}
    for chosen in (second, first + 0x1000, 0x7FFF_0000, 0):
        assert running(kernel, chosen, first, cs=0x33, kernel_bases=(first, second)) == right
        # An older QEMU does not tell the kernel's: the order of the notes is left.
        assert running(kernel, chosen, chosen, cs=0x33) == right
        # In the kernel before `swapgs`, and after it.
        assert running(kernel, chosen, second, kernel_bases=(first, chosen)) == right
        assert running(kernel, first, second, kernel_bases=(chosen, chosen)) == right
    # In a capture kernel the order is another.
    assert running(kernel, first, second, cs=0x33, kernel_bases=(second, first)) == {7: (0, 1), 8: (1, 0)}


def test_of_two_bases_of_cpus_the_stack_decides(sample: Session) -> None:
    """No program chooses that: here the one CPU is on its own stacks, and notes stand in another order."""
    (note,) = sample.snapshot.cpus
    (task,) = sample.unwinder.running
    assert note.gs_base is not None
    other = replace(note, cpu=0, registers={**note.registers, "rsp": 0xFFFF_C900_0000_1000}, gs_base=(1 << 64) - 4096)
    own = replace(note, cpu=1, gs_base=(1 << 64) - 4096, kernel_gs_base=note.gs_base)
    for state in (own, replace(own, gs_base=note.gs_base, kernel_gs_base=(1 << 64) - 4096)):
        (cpu, found) = tasks_on_cpus(sample.linux, [other, state])[task]
        assert (cpu, found) == (0, state)


def test_registers_of_another_kernel_are_not_taken_for_this_ones(sample: Session) -> None:
    """The sample, its note behind one of a CPU that stands elsewhere: the same stack as ever."""
    (own,) = sample.snapshot.cpus
    other = replace(own, gs_base=0xFFFF_8880_1234_0000, registers={**own.registers, "rip": own.registers["rip"] - 64})
    cpus = (replace(other, cpu=0), replace(own, cpu=1))
    session = Session(sample.image, replace(sample.snapshot, cpus=cpus))
    (task,) = session.unwinder.running
    known = sample.unwinder.trace(sample.task(task))
    assert [f.ip for f in session.unwinder.trace(session.task(task)).frames] == [f.ip for f in known.frames]
