"""How does a snapshot look to gdb: which threads, registers and memory does a server of it offer?"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.emulation.pages import PageSource
from orcdbg.emulation.stops import StoppedBy
from orcdbg.gdb.server import ServedThread
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.machine import CpuState
from orcdbg.target.session import Session
from orcdbg.unwind.starts import running_start, sleeping_start

# Instructions between two looks at whether the client has had enough.
_BURST = 2000
# gdb's thread numbers: pids come below this, idle tasks, which all have pid 0, from here on by their CPU, and behind those
# the tasks whose pid is taken.
_SWAPPER = 1 << 30
_MAX_CPUS = 8192
_RENAMED = {"rflags": "eflags"}


class ServedCpu:
    """A CPU that runs on from its recorded registers, in a copy of memory that it alone sees.

    Args:
        session: the stopped kernel.
        cpu: the CPU's number in this kernel.
        note: the CPU's registers.
    """

    def __init__(self, session: Session, cpu: int, note: CpuState) -> None:
        # unicorn takes a while to load, and most clients only look
        from orcdbg.emulation.emulator import Emulator
        from orcdbg.emulation.start import gs_base

        self._recorded = note.registers
        pages = PageSource(session.memory, session.code)
        base = gs_base(session.linux, cpu, note)
        self._emulator = Emulator(pages.page, session.is_text, note.registers, base)

    def registers(self) -> Mapping[str, int]:
        """All registers; those that the emulator has none of as they were recorded."""
        return {**self._recorded, **self._emulator.registers()}

    def read(self, address: int, size: int) -> bytes:
        """Memory as this CPU sees it."""
        return self._emulator.memory.read(address, size)

    def step(self) -> None:
        """Runs one instruction; OrcdbgError, with the reason, where the emulator does not."""
        stop = self._emulator.step()
        if stop is not None:
            raise OrcdbgError(stop.why or stop.by.value)

    def run(self, count: int, until: frozenset[int]) -> bool:
        """Runs so many instructions, or up to an address; whether it could go on."""
        return self._emulator.run(count, until).by is StoppedBy.COUNT


class ServedSnapshot:
    """A session as a `ServedTarget`: its tasks are the threads, those on CPUs with all their registers.

    Args:
        session: the stopped kernel.
        first: the task to look at first.
    """

    def __init__(self, session: Session, first: Task) -> None:
        self._session = session
        self._first = first
        # The thread that was moved, and its CPU.
        self._moved: tuple[int, ServedCpu] | None = None

    def afresh(self) -> ServedSnapshot:
        """The same for another client: nothing has moved."""
        other: ServedSnapshot = copy.copy(self)  # what it found out about the tasks, too
        other._moved = None
        return other

    @functools.cached_property
    def _tasks(self) -> dict[int, Task]:
        """Tasks by thread number: their pid, or a number of their own where that is 0 or taken."""
        tasks: dict[int, Task] = {}
        for index, task in enumerate([self._first, *self._session.tasks]):
            # The first is in the list a second time.
            if index and task.address == self._first.address:
                continue

            number = task.pid
            if not 0 < number < _SWAPPER or number in tasks:
                is_idle = not task.pid
                number = _SWAPPER + ((task.cpu or 0) if is_idle else _MAX_CPUS + index)
            tasks[number] = task
        return tasks

    @functools.cached_property
    def threads(self) -> Sequence[ServedThread]:
        """Every task; those on a CPU say so."""
        running = self._session.unwinder.running
        threads = []
        for number, task in self._tasks.items():
            cpu = f" on CPU {running[task.address][0]}" if task.address in running else ""
            threads.append(ServedThread(number, f"{task.comm}{cpu}"))
        return threads

    def _task(self, thread: int) -> Task:
        if thread not in self._tasks:
            raise NotFound("thread", str(thread))
        return self._tasks[thread]

    def registers(self, thread: int) -> Mapping[str, int]:
        """A CPU's recorded ones, or the few that a task kept when it was switched out; none where nothing is known."""
        if self._moved is not None and self._moved[0] == thread:
            return _for_gdb(self._moved[1].registers())

        task = self._task(thread)
        running = self._session.unwinder.running
        if task.address in running:
            _, note = running[task.address]
            return {} if note is None else _recorded_registers(note)

        if not task.stack:
            return {}
        try:
            start = sleeping_start(self._session.linux, task.address)
        except MemoryFault:
            return {}
        return {name: value.value for name, value in start.registers.items()}

    def read(self, address: int, size: int) -> bytes:
        """Memory, as an emulated thread left it; text that the snapshot lacks is replayed."""
        if self._moved is not None:
            return self._moved[1].read(address, size)
        try:
            return self._session.memory.read(address, size)
        except MemoryFault:
            if not self._session.is_text(address):
                raise
            return self._session.text.read(address, size)

    def step(self, thread: int) -> None:
        """Runs one instruction in the emulator."""
        self._emulation(thread).step()

    def run(self, thread: int, until: frozenset[int], stopped: Callable[[], bool]) -> None:
        """Runs on in the emulator, up to an address, the end of its limits, or an instruction that it does not run."""
        emulation = self._emulation(thread)
        while emulation.run(_BURST, until) and not stopped():
            pass

    def _emulation(self, thread: int) -> ServedCpu:
        """The emulated thread: one at a time, and another one begins anew from the snapshot."""
        if self._moved is None or self._moved[0] != thread:
            task = self._task(thread)
            running = self._session.unwinder.running
            cpu, note = running.get(task.address, (0, None))
            if note is None:
                raise OrcdbgError(f"task {task.pid} is not on a CPU: not all its registers are known")
            self._moved = thread, ServedCpu(self._session, cpu, note)
        return self._moved[1]


def _recorded_registers(note: CpuState) -> dict[str, int]:
    """A CPU's registers, by gdb's names."""
    registers = _for_gdb({name: value.value for name, value in running_start(note).registers.items()})
    more = {"cr3": note.cr3, "cr4": note.cr4, "gs_base": note.gs_base}
    return registers | {name: value for name, value in more.items() if value is not None}


def _for_gdb(registers: Mapping[str, int]) -> dict[str, int]:
    """Registers by gdb's names."""
    return {_RENAMED.get(name, name): value for name, value in registers.items()}
