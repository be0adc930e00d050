"""Which of a snapshot's memory is kept: what is asked of a session so that its memory is read, and remembered?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from orcdbg.base.errors import Corrupt, MemoryFault, OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.kernel.tasks import Task
from orcdbg.orc.check import check_kernel
from orcdbg.patches.audit.core_text import audit_kernel
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import find_placement
from orcdbg.target.session import Session
from orcdbg.trim import essential_memory as essentials
from orcdbg.trim.essential_memory import Range
from orcdbg.trim.other_debuggers import DISASSEMBLED, STRING_READ, TEXT_LINE, VARIABLES
from orcdbg.trim.recorder import Recorder
from orcdbg.unwind.frame import StackTrace
from orcdbg.unwind.unwinder import MAX_SCANNED

# What memory says may be kept: of one range, as of a module whose size is a lie, and in all. A million tasks' stacks.
MAX_RANGE_PAGES = 1 << 15
MAX_PAGES = 1 << 20


@dataclass(frozen=True, slots=True)
class TrimChoice:
    """What the user wants kept.

    Attributes:
        tasks: whose stacks; None for all.
        all_stacks: whole stacks, also what is below the stack pointer.
        text: the patched text.
    """

    tasks: Sequence[Task] | None = None
    all_stacks: bool = False
    text: bool = False


class Keeper:
    """Reads what shall be kept, so that the recorder behind the session notes it.

    Args:
        memory: the kernel's virtual memory, of which the recorder is below.

    Attributes:
        missing: how many pages would have been kept and are not in the snapshot.
        blank: numbers of physical pages that shall be there for other readers, without their contents.
    """

    def __init__(self, memory: KernelMemory) -> None:
        self._memory = memory
        self.missing = 0
        self.blank: set[int] = set()
        self._kept = Budget(MAX_PAGES)
        self._blank = Budget(MAX_PAGES)

    @property
    def problems(self) -> list[str]:
        """Lines for what was left out because memory claims too much."""
        return [*self._kept.lines(), *self._blank.lines()]

    def leave_blank(self, ranges: Iterable[Range]) -> None:
        """Notes the pages of virtual (address, size) ranges as there but left out."""
        for address, size in ranges:
            pages = range(address // PAGE, (address + size - 1) // PAGE + 1)
            if len(pages) > MAX_RANGE_PAGES:
                self._blank.note_error("a range to leave blank", address, Corrupt(f"{size} bytes"))
                continue
            if not self._blank.take("pages to leave blank", address, len(pages)):
                return

            for page in pages:
                with contextlib.suppress(MemoryFault):
                    self.blank.add(self._memory.translate(page * PAGE) // PAGE)

    def keep(self, ranges: Iterable[Range]) -> None:
        """Reads virtual (address, size) ranges, page by page; what is not there is counted."""
        for address, size in ranges:
            if size // PAGE > MAX_RANGE_PAGES:
                self._kept.note_error("a range to keep", address, Corrupt(f"{size} bytes"))
                continue
            if not self._kept.take("pages to keep", address, 1 + size // PAGE):
                return

            end = address + size
            while address < end:
                length = min(end - address, PAGE - address % PAGE)
                try:
                    self._memory.read(address, length)
                except MemoryFault:
                    self.missing += 1
                address += length


@dataclass(frozen=True, slots=True)
class Selection:
    """What is kept of a snapshot.

    Attributes:
        ranges: the bytes, [start, end) of physical addresses, rising, neither overlapping nor touching.
        blank: numbers of physical pages that are to be in the file without their contents.
        stacks: how many stacks are among them.
        missing: how many pages would have been kept and are not in the snapshot.
        problems: lines for what was left out because memory claims too much.
    """

    ranges: Sequence[tuple[int, int]]
    blank: Set[int]
    stacks: int
    missing: int
    problems: Sequence[str] = ()

    @property
    def size(self) -> int:
        """How many bytes of memory are kept."""
        return sum(end - start for start, end in self.ranges)


def select(session: Session, recorder: Recorder, choice: TrimChoice) -> Selection:
    """Reads all that is to be kept.

    Args:
        session: opened through `recorder`.
        recorder: between the session and the snapshot's memory; what it remembered before is kept too.
        choice: what the user wants.
    """
    keeper = Keeper(session.memory)
    tasks = session.tasks if choice.tasks is None else choice.tasks

    _ask_for_more(session)

    stacks = _keep_stacks(session, keeper, tasks, choice.all_stacks)
    _keep_structures(session, keeper)
    _check_text(session, recorder, choice.text)
    if choice.text:
        keeper.keep(_text_ranges(session))

    return Selection(recorder.ranges(), keeper.blank, stacks, keeper.missing, keeper.problems)


def _ask_for_more(session: Session) -> None:
    """Asks what commands may ask that the caller did not, for the sake of what that reads."""
    for module in session.names.modules:
        session.find_orc(module.text[0])
        session.patches.module_sites.of(module)

    _try_asking(lambda: session.patches.passes)

    # A trimmed snapshot whose VMCOREINFO somebody strips is to be found by the registers as the whole one was.
    without_notes = replace(session.snapshot, vmcoreinfo={})
    _try_asking(lambda: find_placement(without_notes, session.link_address))


def _try_asking(question: Callable[[], object]) -> None:
    """Asks; a kernel that cannot answer has nothing more to keep."""
    try:
        question()
    except OrcdbgError:
        return


def _keep_stacks(session: Session, keeper: Keeper, tasks: Sequence[Task], is_whole: bool) -> int:
    """Keeps the stacks of tasks, and the code that they are in; the number of stacks."""
    linux = session.linux
    budget = Budget(MAX_SCANNED)
    traces = [session.unwinder.trace(task, budget) for task in tasks]
    keeper.keep(essentials.readable(_code_ranges(session, traces)))

    stacks = [essentials.stack_range(linux, task, is_whole) for task in tasks]
    kept = [stack for stack in stacks if stack is not None]
    keeper.keep(kept)

    # Crash reads a stack as a whole, before it looks at the part in use.
    whole = [essentials.stack_range(linux, task, True) for task in session.tasks]
    keeper.leave_blank(stack for stack in whole if stack is not None)
    keeper.leave_blank(module.text for module in session.names.modules)
    return len(kept)


def _code_ranges(session: Session, traces: Sequence[StackTrace]) -> Iterator[Range]:
    """The functions on the stacks, and what the kernel's own unwinder would look up for each frame in them.

    Crash disassembles the one and searches the other, in memory.
    """
    seen: set[int] = set()
    for frame in (frame for trace in traces for frame in trace.frames):
        location = frame.location
        if location is None or not session.is_text(frame.ip):
            continue

        if location.start not in seen:
            seen.add(location.start)
            yield location.start & -TEXT_LINE, location.size + TEXT_LINE

        if frame.ip not in seen and session.is_image_text(frame.ip):
            seen.add(frame.ip)
            yield from essentials.orc_lookup_ranges(session.linux, frame.ip)


def _keep_structures(session: Session, keeper: Keeper) -> None:
    """Keeps what the kernel knows of tasks, CPUs, modules, its log and its memory."""
    linux = session.linux
    for task in session.tasks:
        keeper.keep(essentials.readable(essentials.task_ranges(linux, task)))

    disassembled = essentials.variable_ranges(linux, DISASSEMBLED)
    parts: list[Iterator[Range]] = [
        essentials.pid_ranges(linux),
        essentials.log_ranges(linux),
        essentials.cpu_ranges(linux),
        essentials.cpu_stack_ranges(linux),
        essentials.variable_ranges(linux, VARIABLES),
        ((start & -TEXT_LINE, size + TEXT_LINE) for start, size in disassembled),
        iter([(linux.address("linux_banner"), STRING_READ)]),
        essentials.scheduler_text(linux),
        essentials.section_ranges(linux),
        essentials.node_ranges(linux),
        essentials.cache_ranges(linux),
        *(essentials.module_ranges(linux, module) for module in session.names.modules),
    ]
    for part in parts:
        keeper.keep(essentials.readable(part))


def _check_text(session: Session, recorder: Recorder, is_audit: bool) -> None:
    """Asks for `patch check`, and `patch audit` where the text is kept: for the tables that they read, not for the text."""
    start, end = session.build.text
    physical = start - KERNEL_BASE + session.placement.phys_base
    with recorder.ignoring(physical, physical + end - start):
        _try_asking(lambda: check_kernel(session.code, session.overlay))
        if is_audit:
            _try_asking(lambda: audit_kernel(session.patches))


def _text_ranges(session: Session) -> Iterator[Range]:
    start, end = session.build.text
    yield start, end - start
    for module in session.names.modules:
        yield module.text
