"""Which memory must a snapshot hold so that a debugger finds every task, its stack, the modules and the log in it?

What orcdbg itself reads is kept because it is read (`recorder.py`). This is the rest: what crash and drgn, which come to tasks
and log by other ways, must find. Nothing here reaches user memory, the page cache or anonymous kernel allocations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from orcdbg.base.errors import Corrupt, MemoryFault, OrcdbgError
from orcdbg.base.reading import read_u32, read_u64
from orcdbg.base.sizes import PAGE, U64
from orcdbg.base.walks import Budget, Tree
from orcdbg.kernel import unflushed_log
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.log import find_log_buffer
from orcdbg.kernel.modules import Module
from orcdbg.kernel.stacks import cpu_stacks, task_stack
from orcdbg.kernel.tasks import Task, started_cpus

# (address, size in bytes) of kernel virtual memory.
Range = tuple[int, int]
# Nodes and entries of the pid table. One of all pids that there may be (2^22) has a node for each 64 of those in use; a
# false entry costs 20 us.
MAX_PIDS = 1 << 18
# Pages of the table of memory sections, each of which describes some 32 GB.
MAX_SECTION_PAGES = 1 << 12
MAX_CACHES = 1 << 14  # a kernel has some 300
MAX_AREA = 16 << 20
MAX_RING = 64 << 20
MAX_NOTES = 64
MAX_NODES = 64
MAX_SCHEDULER_TEXT = 64 << 10
ORC_BLOCK = 256  # LOOKUP_BLOCK_SIZE of arch/x86/include/asm/orc_lookup.h
_SLOTS = 64
# State of the random number generator, drivers/char/random.c: per-CPU areas hold it among everything else.
_SECRETS = ("crngs", "batched_entropy_u8", "batched_entropy_u16", "batched_entropy_u32", "batched_entropy_u64")


def task_ranges(linux: Linux, task: Task) -> Iterator[Range]:
    """A task's own structures: its task_struct, signal_struct, and struct pid."""
    yield task.address, linux.types.size("task_struct")
    for member, struct in (("signal", "signal_struct"), ("thread_pid", "pid")):
        if linux.types.has("task_struct", member) and linux.types.exists(struct):
            address = linux.member("task_struct", member, task.address)
            if address:
                # struct pid ends in an array of a namespace a level, of which the outermost is inside the structure.
                yield address, linux.types.size(struct) + (64 if struct == "pid" else 0)


def stack_range(linux: Linux, task: Task, is_whole: bool) -> Range | None:
    """A task's stack; None where it was given back, or memory does not tell where it is.

    Args:
        linux: the kernel.
        task: whose.
        is_whole: all of it; otherwise from the saved stack pointer up, which is what a sleeping task uses. What a running
            one uses below it is kept because the walk reads it.
    """
    try:
        stack = task_stack(linux, task.address)
    except MemoryFault:
        return None
    if stack is None:
        return None

    try:
        sp = linux.member("task_struct", "thread.sp", task.address)
    except MemoryFault:
        sp = 0  # a snapshot that was cut down before

    start = stack.begin if is_whole or not stack.holds(sp) else sp
    return start, stack.end - start


def cpu_ranges(linux: Linux) -> Iterator[Range]:
    """The static part of each started CPU's per-CPU area, without the random number generator's state."""
    start, end = linux.find_address("__per_cpu_start"), linux.find_address("__per_cpu_end")
    if start is None or end is None or not 0 < end - start <= MAX_AREA:
        return
    holes = sorted(_secrets(linux, start, end))
    for cpu in started_cpus(linux):
        base, at = linux.per_cpu_offset(cpu), start
        for low, high in [*holes, (end, end)]:
            if low > at:
                yield base + at & U64, low - at
            at = max(at, high)


def _secrets(linux: Linux, start: int, end: int) -> Iterator[Range]:
    for name in _SECRETS:
        symbol = linux.symbols.find(name)
        address = linux.find_address(name)
        if symbol is not None and address is not None and start <= address < end:
            found = linux.symbols.at(symbol.address)
            yield address, address + max(symbol.size, found.size if found else 0, 8)


def cpu_stack_ranges(linux: Linux) -> Iterator[Range]:
    """The interrupt, exception and entry stacks of all started CPUs."""
    for cpu in started_cpus(linux):
        for stack in cpu_stacks(linux, cpu):
            yield stack.begin, stack.end - stack.begin


def module_ranges(linux: Linux, module: Module) -> Iterator[Range]:
    """A module's areas without its text, and its `struct module`."""
    yield module.address, linux.types.size("module")
    yield from readable(_note_ranges(linux, module))
    text, size = module.text
    for start, length in module.ranges:
        if start <= text < start + length:
            # Up to 6.3 text and data are one area, text first.
            after = text + size
            if start + length > after:
                yield after, start + length - after
        else:
            yield start, length


def _note_ranges(linux: Linux, module: Module) -> Iterator[Range]:
    """Where a module's notes are, by which other tools know its build."""
    if linux.types.has("module", "notes_attrs") and linux.types.exists("module_notes_attrs"):
        attributes = linux.member("module", "notes_attrs", module.address)
        if attributes:
            yield attributes, linux.types.size("module_notes_attrs")
            count = min(linux.first_member("module_notes_attrs", ("notes",), attributes) or 0, MAX_NOTES)
            yield attributes, linux.types.size("module_notes_attrs") + count * linux.types.size("bin_attribute")


def pid_ranges(linux: Linux) -> Iterator[Range]:
    """The pid table (an IDR) from which other tools come to the tasks: its nodes and the struct pids."""
    if not (linux.types.has("pid_namespace", "idr") and linux.types.has("xa_node", "slots")):
        return
    namespace = linux.find_address("init_pid_ns")
    if namespace is None:
        return
    yield namespace, linux.types.size("pid_namespace")
    root = linux.member("pid_namespace", "idr.idr_rt.xa_head", namespace)
    node_size, slots_at = linux.types.size("xa_node"), linux.types.offset("xa_node", "slots")
    pid_size = linux.types.size("pid") + 64

    def slots_of(entry: int) -> list[int]:
        if not _is_node(entry):
            return []
        slots = memoryview(linux.memory.read(entry - 2 + slots_at, 8 * _SLOTS)).cast("Q").tolist()
        return [slot for slot in slots if slot]

    for entry in Tree([root], slots_of, Budget(MAX_PIDS), "the pid table"):
        if _is_node(entry):
            yield entry - 2, node_size
        elif entry and not entry & 3:
            yield entry, pid_size


def _is_node(entry: int) -> bool:
    """Whether an entry of an xarray is one of its nodes: xa_mk_node() sets bit 1."""
    return entry & 3 == 2


def log_ranges(linux: Linux) -> Iterator[Range]:
    """The kernel's log buffer as a whole, free descriptors too: other tools read its rings at once. What never came into it."""
    for address, size in itertools.chain(find_log_buffer(linux).areas(), unflushed_log.areas(linux)):
        if size <= MAX_RING:
            yield address, size


def orc_lookup_ranges(linux: Linux, ip: int) -> Iterator[Range]:
    """What orc_find() reads for an address of the kernel's text: two entries of the lookup table, and the rows between."""
    names = ("orc_lookup", "__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind", "_stext")
    table, ips, ips_end, rows, text = (linux.find_address(name) for name in names)
    text = linux.find_address("_text") if text is None else text
    if table is None or ips is None or ips_end is None or rows is None or text is None or ip < text:
        return
    entry = table + 4 * ((ip - text) // ORC_BLOCK)
    yield entry, 8
    first, last = (int.from_bytes(linux.memory.read(entry + at, 4), "little") for at in (0, 4))
    count = (ips_end - ips) // 4
    if first <= last < count:
        yield ips + 4 * first, 4 * (last - first + 2)
        yield rows + 6 * first, 6 * (last - first + 2)


def scheduler_text(linux: Linux) -> Iterator[Range]:
    """The functions that sleep, which lie side by side."""
    start, end = linux.find_address("__sched_text_start"), linux.find_address("__sched_text_end")
    if start is not None and end is not None and 0 < end - start <= MAX_SCHEDULER_TEXT:
        yield start, end - start


def section_ranges(linux: Linux) -> Iterator[Range]:
    """The table of memory sections (SPARSEMEM_EXTREME): its root, and the pages of sections that it names."""
    variable = linux.find_address("mem_section")
    if variable is None or not linux.types.exists("mem_section"):
        return
    root = read_u64(linux.memory, variable)
    size = _sections_root_size(linux)
    yield root, size
    budget = Budget(MAX_SECTION_PAGES)
    for at in range(0, size, PAGE):
        words = memoryview(linux.memory.read(root + at, PAGE)).cast("Q")
        for page in words.tolist():
            if page and not budget.take("the table of memory sections", page):
                return
            if page:
                yield page, PAGE


def _sections_root_size(linux: Linux) -> int:
    """Bytes of NR_SECTION_ROOTS pointers: sections of 128 MB, in 46 or 52 bits of physical addresses."""
    size = linux.types.size("mem_section")
    if not 0 < size <= PAGE:
        raise Corrupt(f"struct mem_section of {size} bytes: a page holds none or all")
    levels = linux.find_address("__pgtable_l5_enabled")
    has_five = levels is not None and read_u32(linux.memory, levels) != 0
    sections = 1 << (52 if has_five else 46) - 27
    return sections // (PAGE // size) * 8


def node_ranges(linux: Linux) -> Iterator[Range]:
    """The descriptions of the memory nodes."""
    table = linux.find_address("node_data")
    if table is None or not linux.types.exists("pglist_data"):
        return
    for at in range(0, MAX_NODES * 8, 8):
        node = read_u64(linux.memory, table + at)
        if not node:
            return
        yield node, min(linux.types.size("pglist_data"), MAX_AREA)


def cache_ranges(linux: Linux) -> Iterator[Range]:
    """The descriptions of the slab caches, without the values that hide their free lists."""
    head = linux.find_address("slab_caches")
    if head is None or not linux.types.has("kmem_cache", "list"):
        return
    hidden = linux.types.find("kmem_cache", "random")
    size = linux.types.size("kmem_cache")
    for cache in linux.walk_list(head, "kmem_cache", "list", Budget(MAX_CACHES)):
        end = size if hidden is None else hidden.offset
        yield cache, end
        if end < size:
            yield cache + end + 8, size - end - 8


def variable_ranges(linux: Linux, names: Sequence[str]) -> Iterator[Range]:
    """Kernel variables by name, those that this kernel has."""
    for name in names:
        symbol = linux.symbols.find(name)
        address = linux.find_address(name)
        if symbol is not None and address is not None:
            found = linux.symbols.at(symbol.address)
            yield address, min(symbol.size or (found.size if found else 8), MAX_AREA)


def readable(ranges: Iterator[Range]) -> Iterator[Range]:
    """The ranges up to the first that damaged memory keeps from being found."""
    try:
        yield from ranges
    except OrcdbgError:
        return
