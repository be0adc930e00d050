"""trim: which of a snapshot's memory is enough to walk its stacks, and a smaller snapshot of just that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault, OrcdbgError, UsageError
from orcdbg.base.reading import AddressSpace
from orcdbg.commands.writing import replacing
from orcdbg.formats.core_writing import PAGE, write_core
from orcdbg.formats.elf import Note
from orcdbg.image.vmlinux import KERNEL_BASE
from orcdbg.kernel.tasks import Task
from orcdbg.orc.check import check_kernel
from orcdbg.patches.audit.core_text import audit_kernel
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.snapshot.placement import find_placement
from orcdbg.snapshot.readers.kept import NOTE_OWNER, Recorder, cut_out, encode_kept, runs_of
from orcdbg.target.session import Session
from orcdbg.trim import essential_memory as essentials
from orcdbg.unwind.frame import StackTrace

_LINE = 64
# What crash and drgn ask for before they look at any task.
_VARIABLES = (
    *("linux_banner", "init_uts_ns", "saved_command_line", "__per_cpu_offset", "__per_cpu_start", "__per_cpu_end"),
    *("__cpu_possible_mask", "__cpu_present_mask", "__cpu_online_mask", "__cpu_active_mask", "nr_cpu_ids"),
    *(
        "init_task",
        "init_thread_union",
        "init_pid_ns",
        "pid_hash",
        "modules",
        "jiffies",
        "jiffies_64",
        "xtime",
        "tk_core",
    ),
    *("crashing_cpu", "panic_on_oops", "phys_base", "page_offset_base", "vmalloc_base", "vmemmap_base", "pgdir_shift"),
    *("ptrs_per_p4d", "__pgtable_l5_enabled", "init_top_pgt", "cpu_info", "boot_cpu_data", "idt_table", "crash_notes"),
    *("mem_section", "node_data", "contig_page_data", "slab_caches", "kallsyms_num_syms", "log_buf", "log_buf_len"),
    *("node_states", "memory_block_size_probed", "kexec_crash_image", "panic_cpu", "system_state", "tainted_mask"),
    *(
        "xen_start_info",
        "pv_info",
        "shadow_timekeeper",
        "high_memory",
        "nr_swapfiles",
        "nr_threads",
        "nr_irqs",
        "kmem_cache",
    ),
    *("arch_task_struct_size", "task_state_array", "pageflag_names", "lookup_num_blocks"),
)
# Functions that crash disassembles while it opens a snapshot, before anybody asks for a stack.
_DISASSEMBLED = (
    *("common_interrupt", "asm_common_interrupt", "schedule", "__schedule", "do_nanosleep", "vfs_read", "do_futex"),
    *("__x64_sys_open", "__do_sys_fork", "__x64_sys_read", "__switch_to", "__switch_to_asm"),
    *("ret_from_fork", "ret_from_fork_asm", "entry_SYSCALL_64"),
)
_BANNER_READ = 1500  # crash reads that many bytes of every string


@dataclass(frozen=True, slots=True)
class TrimChoice:
    """What the user wants kept: `tasks` None for all, whole stacks, the patched text; and whether to compress it."""

    tasks: Sequence[Task] | None
    all_stacks: bool
    text: bool
    zstd: bool = False


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A trimmed snapshot: bytes of its file, of memory in it, and how much could not be had."""

    path: str
    size: int
    kept: int
    stacks: int
    missing: int


@dataclass(frozen=True, slots=True)
class TrimmedImage:
    """A trimmed vmlinux, and the bytes of its file."""

    path: str
    size: int


class _Keeper:
    """Reads what shall be kept, so that the recorder behind the session notes it.

    `blank` are numbers of physical pages that shall be there for other readers, without their contents.
    """

    def __init__(self, memory: KernelMemory) -> None:
        self._memory = memory
        self.missing = 0
        self.blank: set[int] = set()

    def leave_blank(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Notes the pages of virtual (address, size) ranges as there but left out."""
        for address, size in ranges:
            for page in range(address // PAGE, (address + size - 1) // PAGE + 1):
                with contextlib.suppress(MemoryFault):
                    self.blank.add(self._memory.translate(page * PAGE) // PAGE)

    def keep(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Reads virtual (address, size) ranges, page by page; what is not there is counted."""
        for address, size in ranges:
            end = address + size
            while address < end:
                length = min(end - address, PAGE - address % PAGE)
                try:
                    self._memory.read(address, length)
                except MemoryFault:
                    self.missing += 1
                address += length


def _asked(session: Session) -> None:
    """What commands may ask that the caller did not: asked once, for the sake of what that reads."""
    for module in session.names.modules:
        session.find_orc(module.text[0])
        session.patches.module_sites.of(module)
    _tried(lambda: session.patches.passes)
    _tried(lambda: find_placement(replace(session.snapshot, vmcoreinfo={}), session.link_address))


def _tried(question: Callable[[], object]) -> None:
    """Asks; a kernel that cannot answer has nothing more to keep."""
    try:
        question()
    except OrcdbgError:
        return


def _code_ranges(session: Session, traces: Sequence[StackTrace]) -> Iterator[tuple[int, int]]:
    """The functions on the stacks, and what the kernel's own unwinder would look up for each frame in them.

    Crash disassembles the one and searches the other, in memory.
    """
    seen: set[int] = set()
    for frame in (frame for trace in traces for frame in trace.frames):
        where = frame.location
        if where is None or not session.is_text(frame.ip):
            continue
        if where.start not in seen:
            seen.add(where.start)
            yield where.start & -_LINE, where.size + _LINE
        if frame.ip not in seen and session.is_image_text(frame.ip):
            seen.add(frame.ip)
            yield from essentials.orc_lookup_ranges(session.linux, frame.ip)


def _text_ranges(session: Session) -> Iterator[tuple[int, int]]:
    start, end = session.build.text
    yield start, end - start
    for module in session.names.modules:
        yield module.text


def select(session: Session, recorder: Recorder, choice: TrimChoice) -> tuple[int, _Keeper]:
    """Reads all that is to be kept; the number of stacks, and what was met on the way."""
    keeper, linux = _Keeper(session.memory), session.linux
    tasks = session.tasks if choice.tasks is None else choice.tasks
    _asked(session)
    keeper.keep(essentials.readable(_code_ranges(session, [session.unwinder.trace(task) for task in tasks])))
    stacks = [essentials.stack_range(linux, task, choice.all_stacks) for task in tasks]
    keeper.keep(one for one in stacks if one is not None)
    # Crash reads a stack as a whole, before it looks at the part in use.
    whole = [essentials.stack_range(linux, task, True) for task in session.tasks]
    keeper.leave_blank(one for one in whole if one is not None)
    keeper.leave_blank(module.text for module in session.names.modules)
    for task in session.tasks:
        keeper.keep(essentials.readable(essentials.task_ranges(linux, task)))
    found: list[Iterator[tuple[int, int]]] = [
        essentials.pid_ranges(linux),
        essentials.log_ranges(linux),
        essentials.cpu_ranges(linux),
        essentials.cpu_stack_ranges(linux),
        essentials.variable_ranges(linux, _VARIABLES),
        ((start & -_LINE, size + _LINE) for start, size in essentials.variable_ranges(linux, _DISASSEMBLED)),
        iter([(linux.address("linux_banner"), _BANNER_READ)]),
        essentials.scheduler_text(linux),
        essentials.section_ranges(linux),
        essentials.node_ranges(linux),
        essentials.cache_ranges(linux),
        *(essentials.module_ranges(linux, module) for module in session.names.modules),
    ]
    for ranges in found:
        keeper.keep(essentials.readable(ranges))
    start, end = session.build.text
    physical = start - KERNEL_BASE + session.placement.phys_base
    with recorder.ignoring(physical, physical + end - start):
        _tried(lambda: check_kernel(session.code, session.overlay))
        if choice.text:
            _tried(lambda: audit_kernel(session.patches))
    if choice.text:
        keeper.keep(_text_ranges(session))
    return len([one for one in stacks if one is not None]), keeper


def write_trimmed(session: Session, recorder: Recorder, memory: AddressSpace, choice: TrimChoice, path: str) -> Trimmed:
    """Writes the trimmed snapshot; a file that is there already is replaced only when all went well.

    Args:
        session: opened through `recorder`.
        recorder: between the session and `memory`.
        memory: the snapshot's physical memory.
        choice: what to keep.
        path: the file to write.
    """
    stacks, keeper = select(session, recorder, choice)
    ranges = recorder.ranges()
    notes = [note for note in session.snapshot.notes if note.name != NOTE_OWNER]
    if not notes:
        raise UsageError(f"{session.snapshot.path}: this kind of snapshot has no ELF notes to take over")

    def read(first: int, count: int) -> bytes:
        return cut_out(ranges, memory, first * PAGE, count * PAGE)

    kept: list[Note] = [*notes, encode_kept(ranges)]
    runs = runs_of(ranges, memory, keeper.blank)
    with replacing(path, session.files) as file:
        if choice.zstd:
            import zstandard  # only where it is asked for

            with zstandard.ZstdCompressor(level=12).stream_writer(file, closefd=False) as packed:
                write_core(packed, kept, runs, read)
        else:
            write_core(file, kept, runs, read)
        size = file.tell()
    return Trimmed(path, size, sum(end - start for start, end in ranges), stacks, keeper.missing)
