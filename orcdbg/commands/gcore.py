"""gcore: a user task's memory and registers as a core file, for gdb."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.commands.task_choice import chosen_tasks
from orcdbg.commands.writing import replacing
from orcdbg.formats.user_core import (
    NT_AUXV,
    NT_FILE,
    NT_PRPSINFO,
    NT_PRSTATUS,
    CoreSegment,
    MappedFile,
    files_note,
    note,
    prpsinfo,
    prstatus,
    write_head,
)
from orcdbg.kernel.tasks import Task
from orcdbg.subsystems.memory_maps import Area, memory_map
from orcdbg.subsystems.user_memory import UserMemory, UserPageState
from orcdbg.target.search_spaces import held_bytes
from orcdbg.unwind.frame import FrameKind

MAX_AREAS = 1 << 17
# Pages that are looked at one by one: those that no page table maps. Of a process's files most are mapped.
MAX_LOOKED_AT = 1 << 18
MAX_TABLES = 1 << 18
MAX_PAGES = 1 << 24  # 64 GiB
MAX_SEGMENTS = 60_000  # e_phnum has 16 bits
MAX_SIZE = 1 << 40
_SHIFTS = {"PGD": 39, "P4D": 39, "PUD": 30, "PMD": 21, "PTE": 12}
_ZEROS = frozenset((UserPageState.NEVER_TOUCHED, UserPageState.ZERO))
_PERMISSIONS = {"r": 4, "w": 2, "x": 1}


@dataclass(frozen=True, slots=True)
class UserCore(Result):
    """A core file that was written.

    Attributes:
        path: of the file.
        pid: the process.
        threads: how many have registers in it.
        size: bytes of the file.
        kept: bytes of memory in it.
        missing: pages that are not in it, by why: `swapped`, `in file`, ...
        problems: what could not be read.
    """

    path: str
    pid: int
    threads: int
    size: int
    kept: int
    missing: dict[str, int]
    problems: Sequence[str]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", metavar="PID|TASK", help="whose memory (default: the selected task's)")
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: core.PID)")


class _Layout:
    """Which stretches of a process's memory go into the file, and which pages are missing."""

    def __init__(self, memory: UserMemory, held: int | None) -> None:
        self._memory = memory
        self._looked_at = Budget(MAX_LOOKED_AT)
        # Tables that lead to themselves map any page any number of times, and would fill the disk. Of what the snapshot
        # holds a process maps less than all, and hardly any of it twice.
        most = MAX_PAGES if held is None else min(held // PAGE, MAX_PAGES)
        self._tables = Budget(min(most, MAX_TABLES))
        self._pages = Budget(most)
        self.segments: list[CoreSegment] = []
        self.missing: dict[str, int] = {}

    def lines(self) -> list[str]:
        """What was left out, in words."""
        return [*self._looked_at.lines(), *self._tables.lines(), *self._pages.lines()]

    def add(self, area: Area) -> None:
        """Takes in an area."""
        permissions = sum(bit for letter, bit in _PERMISSIONS.items() if letter in area.permissions)
        at = area.start
        for run in self._memory.runs(area.start, area.end, self._tables):
            start, end = max(run.address, area.start), min(run.address + run.size, area.end)
            if start < at:
                continue
            self._add_unmapped(at, start, permissions)
            self._add_pages(start, end, permissions)
            at = end
        self._add_unmapped(at, area.end, permissions)

    def _add_unmapped(self, start: int, end: int, permissions: int) -> None:
        """Addresses that no page table maps: pages of files in the page cache, zeros, and what is elsewhere."""
        at = start
        while at < end and self._looked_at.take("pages of user memory", at):
            page = self._memory.page(at)
            span = self._span(at, end, page.translation.entries[-1].level.value if page.translation.entries else "PTE")
            if page.state in _ZEROS:
                self._append(at, span, permissions, has_bytes=False)
            elif page.physical is not None:
                span = PAGE
                self._add_pages(at, at + PAGE, permissions)
            else:
                # Below an empty upper entry, pages of a file may be in the page cache all the same.
                span = span if page.file is None else PAGE
                self._miss(page.state.value, span // PAGE)
            at += span
        if at < end:
            self._miss("not looked at", (end - at) // PAGE)

    def _add_pages(self, start: int, end: int, permissions: int) -> None:
        """Pages that are in memory, as far as they are in the snapshot too: no zeros stand in the place of others."""
        for at in range(start, end, PAGE):
            if not self._pages.take("pages of user memory", at):
                self._miss("too many pages", (end - at) // PAGE)
                return
            try:
                self._memory.read(at, 8)
            except MemoryFault:
                self._miss("not in the snapshot", 1)
            else:
                self._append(at, PAGE, permissions, has_bytes=True)

    def _miss(self, why: str, pages: int) -> None:
        self.missing[why] = self.missing.get(why, 0) + pages

    @staticmethod
    def _span(address: int, end: int, level: str) -> int:
        """Bytes from an address to the end of what an empty entry of that level stands for."""
        size = 1 << _SHIFTS.get(level, 12)
        return min(end, address - address % size + size) - address

    def _append(self, address: int, size: int, permissions: int, *, has_bytes: bool) -> None:
        last = self.segments[-1] if self.segments else None
        follows = last is not None and last.address + last.size == address
        if last is not None and follows and (last.permissions, last.has_bytes) == (permissions, has_bytes):
            self.segments[-1] = last._replace(size=last.size + size)
        elif len(self.segments) < MAX_SEGMENTS:
            self.segments.append(CoreSegment(address, size, permissions, has_bytes))
        else:
            self._miss("too many stretches", size // PAGE)


def _threads(debugger: Debugger, task: Task) -> list[Task]:
    """The threads of a task's process, that task first, as gdb shows the first one."""
    others = [other for other in debugger.session.tasks if task.tgid is not None and other.tgid == task.tgid]
    return [task, *(other for other in others if other.address != task.address)]


def _registers(debugger: Debugger, task: Task, problems: list[str]) -> dict[str, int]:
    """A thread's registers in user mode."""
    trace = debugger.trace(task)
    last = trace.frames[-1] if trace.frames else None
    if last is None or last.kind is not FrameKind.USER:
        problems.append(f"registers of thread {task.pid}: its stack does not lead to user mode, so they are zero")
        return {}
    if not last.is_trusted:
        problems.append(f"registers of thread {task.pid}: a guess")
    found = {name: value.value for name, value in last.registers.items()}
    thread = debugger.session.object("task_struct", task.address).member_("thread")
    names = {"fs_base": ("fsbase",), "gs_base": ("gsbase",), "ds": ("ds",), "es": ("es",)}
    names |= {"fs": ("fsindex",), "gs": ("gsindex",)}
    for name, paths in names.items():
        member = thread.first_of_(*paths)
        if member is not None:
            found[name] = int(member)
    if trace.running:
        problems.append(f"thread {task.pid} was on a CPU: fs_base and gs_base are those of its last switch")
    return found


def _notes(
    debugger: Debugger, task: Task, memory: UserMemory, areas: Sequence[Area], problems: list[str]
) -> tuple[bytes, int]:
    threads = _threads(debugger, task)
    parts = []
    for index, thread in enumerate(threads):
        parent = debugger.session.object("task_struct", thread.address)
        pid = int(parent.member_("real_parent").member_("tgid"))
        parts.append(note(NT_PRSTATUS, prstatus(thread.pid, pid, _registers(debugger, thread, problems))))
        if not index:
            parts.append(note(NT_PRPSINFO, prpsinfo(task.tgid or task.pid, pid, task.comm.encode(), _words(memory))))
    auxiliary = memory.space.member_("saved_auxv")
    parts.append(note(NT_AUXV, auxiliary.bytes_()))
    files = [
        MappedFile(area.start, area.end, area.offset, area.name.encode("utf-8", "replace"))
        for area in areas
        if area.file and area.name
    ]
    if files:
        parts.append(note(NT_FILE, files_note(files)))
    return b"".join(parts), len(threads)


def _words(memory: UserMemory) -> bytes:
    try:
        return " ".join(memory.arguments()).encode("utf-8", "replace")
    except OrcdbgError:
        return b""


@command(
    "gcore",
    summary="write a user task's memory and registers as a core file for gdb",
    group="data",
    effect=Effect.WRITES_FILES,
    arguments=_arguments,
    operands=("task",),
    examples=(("gcore 94", "the process of pid 94, into core.94"), ("gcore -o shell.core 94", "into another file")),
)
def gcore(debugger: Debugger, arguments: argparse.Namespace) -> UserCore:
    """Writes the file, and answers with what is in it and what is not."""
    session = debugger.session
    task = chosen_tasks(debugger, [arguments.task] if arguments.task is not None else [])[0]
    memory = session.kernel_memory.user_memory(task)
    budget = Budget(MAX_AREAS)
    found = memory_map(session.object("task_struct", task.address), budget)
    if found is None:
        raise NotFound("user memory", f"of task {task.pid}")

    areas = sorted(found.areas, key=lambda area: area.start)
    layout = _Layout(memory, held_bytes(session))
    end = 0
    for area in areas:
        if area.start < end or not area.start < area.end <= 1 << 47 or area.end - area.start > MAX_SIZE:
            budget.note_error(
                "an area of user memory", area.address, NotFound("area", f"{area.start:#x}-{area.end:#x}")
            )
            continue
        end = area.end
        layout.add(area)

    problems: list[str] = []
    notes, threads = _notes(debugger, task, memory, areas, problems)
    path = arguments.output if arguments.output is not None else f"core.{task.tgid or task.pid}"
    kept = 0
    with replacing(path, session.files) as file:
        places = write_head(file, notes, layout.segments)
        size = file.tell()
        for segment, place in zip(layout.segments, places, strict=True):
            if not segment.has_bytes:
                continue
            file.seek(place)
            for offset in range(0, segment.size, PAGE):
                file.write(memory.read(segment.address + offset, PAGE))
            kept += segment.size
            size = place + segment.size
    lines = [*budget.lines(), *layout.lines(), *memory.problems, *problems]
    return UserCore(path, task.tgid or task.pid, threads, size, kept, layout.missing, lines)
