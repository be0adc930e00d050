"""What does an analysis draw on: the log, the crashing stack, registers, text, slabs, each read on first use?"""

from __future__ import annotations

import enum
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from orcdbg.analysis.crash_site import CrashException, CrashSite, name_of, take_apart
from orcdbg.analysis.faulting_instruction import FaultingInstruction, read_instruction
from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.kernel.headlines import Announced, Headline, headlines
from orcdbg.kernel.log import LogRecord, read_log
from orcdbg.kernel.tasks import Task, panic_cpu, read_task
from orcdbg.subsystems.slab import SlabObject
from orcdbg.subsystems.waits.model import Graph
from orcdbg.target.wait_graph import wait_graph
from orcdbg.unwind.frame import Frame, FrameKind

if TYPE_CHECKING:
    from orcdbg.target.session import Session
    from orcdbg.unwind.frame import StackTrace


# An analysis takes no more than seconds, and a wait graph some 0.4 ms a task.
MAX_ASLEEP = 4096
# What stops the other CPUs: arch/x86/kernel/smp.c and crash.c.
_STOPPING = ("stop_this_cpu", "crash_nmi_callback", "smp_stop_nmi_callback", "sysvec_reboot")
# print_cpu_stall_info(), kernel/rcu/tree_stall.h; it stands right behind the announcement.
_STALLED = re.compile(r"(?:rcu: )?\s*(\d+)-[.\-!O?D#N]+\w*: \(")
_STALL_LINES, _MAX_TEXT = 8, 256


class Input(enum.Enum):
    """What a detector may need; the values name it to people."""

    LOG = "the log"
    STACK = "the crashing stack"
    REGISTERS = "the registers that an exception saved"
    TEXT = "the text of the faulting instruction"
    SLABS = "the slab allocator"
    WAITS = "who waits for whom"


class Case:
    """One stopped kernel under analysis.

    Args:
        session: the kernel.

    Each part raises an OrcdbgError where it cannot be had.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._objects: dict[int, SlabObject | None] = {}
        self._traces: dict[int, StackTrace] = {}

    def obtain(self, what: Input) -> None:
        """Reads an input.

        Raises:
            OrcdbgError: why it cannot be had.
        """
        getters: Mapping[Input, Callable[[], object]] = {
            Input.LOG: lambda: self.records,
            Input.STACK: lambda: self.site,
            Input.REGISTERS: lambda: self.fault,
            Input.TEXT: lambda: self.instruction,
            Input.SLABS: lambda: self.session.kernel_memory.slabs,
            Input.WAITS: lambda: self.waits,
        }
        getters[what]()

    # The log

    @functools.cached_property
    def _log(self) -> tuple[list[LogRecord], list[str]]:
        return read_log(self.session.linux)

    @property
    def records(self) -> Sequence[LogRecord]:
        """All records of the log, those of programs among them."""
        return self._log[0]

    @property
    def log_problems(self) -> Sequence[str]:
        """What of the log cannot be read."""
        return self._log[1]

    @functools.cached_property
    def headlines(self) -> Sequence[Headline]:
        """What the kernel itself announced, oldest first."""
        return list(headlines(self.records))

    def last(self, *announced: Announced) -> Headline | None:
        """The last line that announces one of these; None without."""
        return next((line for line in reversed(self.headlines) if line.announced in announced), None)

    # The stack

    @functools.cached_property
    def panic_cpu(self) -> int | None:
        """The CPU that panicked."""
        return panic_cpu(self.session.linux)

    @functools.cached_property
    def running(self) -> Mapping[int, Task]:
        """The task that each CPU ran, by the CPU's number."""
        return {cpu: self.find_task(task) for task, (cpu, _) in self.session.unwinder.running.items()}

    def find_task(self, address: int) -> Task:
        """The task at an address: also the idle task of a CPU that went offline when it was stopped, which no list has."""
        try:
            return self.session.task(address)
        except NotFound:
            return read_task(self.session.linux, address)

    def trace(self, task: Task) -> StackTrace:
        """A task's stack, walked once."""
        if task.address not in self._traces:
            self._traces[task.address] = self.session.unwinder.trace(task)
        return self._traces[task.address]

    @functools.cached_property
    def site(self) -> CrashSite:
        """The crashing stack, taken apart."""
        cpu = self.panic_cpu
        if cpu is None:
            raise NotFound("crashing stack", "no CPU panicked")
        task = self.running.get(cpu)
        if task is None:
            raise NotFound("crashing stack", f"what CPU {cpu} ran is not known")
        found = take_apart(self.trace(task))
        if found is None:
            raise NotFound("crashing stack", f"panic() is not on the stack of CPU {cpu}")
        return found

    @functools.cached_property
    def task(self) -> Task:
        """The task on whose CPU the kernel panicked."""
        return self.find_task(self.site.trace.task)

    @functools.cached_property
    def fault(self) -> CrashException:
        """What an exception interrupted on the way to panic()."""
        if self.site.fault is None:
            raise NotFound("registers of an exception", "panic() was called by no exception's handling")
        return self.site.fault

    @functools.cached_property
    def instruction(self) -> FaultingInstruction:
        """The instruction that faulted."""
        return read_instruction(self.session, self.fault)

    @functools.cached_property
    def hung_task(self) -> Task | None:
        """The task that the hung task detector named last; None where it is gone."""
        said = self.last(Announced.HUNG_TASK)
        pid = 0 if said is None else int(said.fields["pid"])
        return next((task for task in self.session.tasks if task.pid == pid), None) if pid else None

    def before_the_stop(self, cpu: int) -> Sequence[Frame]:
        """The frames of what a CPU did before an NMI or interrupt stopped it; of the panicking one, what it was about."""
        if cpu == self.panic_cpu:
            return self.site.way
        task = self.running.get(cpu)
        frames = [] if task is None else [frame for frame in self.trace(task).frames if frame.reliable]
        stopped = next((number for number, frame in enumerate(frames) if name_of(frame) in _STOPPING), None)
        if stopped is None:
            return frames
        kinds = (FrameKind.INTERRUPT, FrameKind.USER)
        way = next((number for number in range(stopped + 1, len(frames)) if frames[number].kind in kinds), stopped)
        return frames[way:]

    @functools.cached_property
    def waits(self) -> Graph:
        """Who waits for whom."""
        asleep = sum(task.sleep is not None for task in self.session.tasks)
        if asleep > MAX_ASLEEP:
            raise NotFound("wait graph", f"of {asleep} tasks that sleep it takes long: ask waits")
        return wait_graph(self.session)

    @functools.cached_property
    def stalled_cpu(self) -> int | None:
        """The CPU that an RCU stall is about, where the detector ran on another one and named one alone."""
        said = self.last(Announced.RCU_STALL)
        if said is None or self.panic_cpu is None:
            return None
        behind = (record for record in self.records if record.seq > said.seq and not record.is_from_user_space)
        named = []
        for record in itertools.islice(behind, _STALL_LINES):
            found = _STALLED.match(record.text[:_MAX_TEXT])
            if found is not None:
                named.append(int(found[1]))
        return named[0] if len(named) == 1 else None

    @property
    def has_fault(self) -> bool:
        """Whether the crashing stack can be walked and an exception is on it."""
        try:
            return self.site.fault is not None
        except OrcdbgError:
            return False

    # Names and memory

    def name(self, address: int, exact: bool = True) -> str:
        """`symbol+0xoffset/0xsize [module]`, or the number."""
        return self.session.names.describe(address, exact) or f"{address:#x}"

    def label(self, address: int) -> str:
        """The name of what begins at an address, `symbol [module]`; as `name` of what is inside, and of what has none."""
        found = self.session.names.at(address) if self.session.names.holds(address) else None
        if found is None:
            return f"{address:#x}"
        if found.start != address:
            return self.name(address)
        return found.symbol + (f" [{found.module}]" if found.module else "")

    def word(self, address: int) -> int | None:
        """The word at an address; None where memory is missing."""
        try:
            return int.from_bytes(self.session.memory.read(address, 8), "little")
        except MemoryFault:
            return None

    def slab_object(self, address: int) -> SlabObject | None:
        """The slab object that an address is in; None where it is in none, or that cannot be told."""
        if address not in self._objects:
            self._objects[address] = self._find_object(address)
        return self._objects[address]

    def _find_object(self, address: int) -> SlabObject | None:
        parts = self.session.kernel_memory
        try:
            slabs = parts.find_slabs()
            if slabs is None or not parts.places.in_direct_map(address):
                return None
            return slabs.object_at(address, parts.pages.of_physical(parts.places.physical_of(address)))
        except OrcdbgError:
            return None
