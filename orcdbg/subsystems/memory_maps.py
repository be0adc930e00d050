"""What is mapped into a task's memory?

Mirrors include/linux/mm_types.h, fs/proc/task_mmu.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists, maple_tree
from orcdbg.subsystems.paths import path_of
from orcdbg.typed.objects import Object

# sysctl_max_map_count is 65,530; databases raise it to some 10^5.
MAX_AREAS = 1 << 20

# VM_READ, VM_WRITE, VM_EXEC, VM_SHARED (include/linux/mm.h).
_PERMISSIONS = ((1, "r"), (2, "w"), (4, "x"))
_MAY_SHARE = 0x80
# MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES; between them is MM_SWAPENTS, which is of what is not in memory.
RESIDENT_KINDS = (0, 1, 3)


@dataclass(frozen=True, slots=True)
class Area:
    """A mapped area of user memory.

    Attributes:
        address: of the `vm_area_struct`.
        start: first address.
        end: first address behind it.
        flags: vm_flags.
        permissions: as in /proc/PID/maps: `r-xp`.
        offset: bytes into the file.
        file: address of the `struct file`, 0 for anonymous memory.
        name: the file's path; `[heap]`, `[stack]`, `[vdso]`; empty for other anonymous memory, None where it cannot be read.
    """

    address: int
    start: int
    end: int
    flags: int
    permissions: str
    offset: int
    file: int
    name: str | None


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """A task's user memory.

    Attributes:
        mm: address of the `mm_struct`.
        pgd: address of its page table.
        resident: pages in memory; None where the kernel's counters are not known.
        total: pages mapped.
        areas: by their address.
    """

    mm: int
    pgd: int
    resident: int | None
    total: int
    areas: list[Area]


def memory_map(task: Object, budget: Budget) -> MemoryMap | None:
    """The user memory of a task; None of a kernel thread, and of a task that ended.

    Args:
        task: its `task_struct`.
        budget: what the walk draws on, and where problems go.
    """
    space = task.member_("mm")
    if not int(space):
        return None
    areas = []
    for area in areas_of(space, budget):
        try:
            areas.append(_area(area, space, budget))
        except OrcdbgError as error:
            budget.note_error("an area of user memory", area.address_ or 0, error)
    return MemoryMap(
        int(space), int(space.member_("pgd")), resident_pages(space), int(space.member_("total_vm")), areas
    )


def areas_of(space: Object, budget: Budget) -> Iterator[Object]:
    """The `vm_area_struct`s of an `mm_struct`."""
    if space.has_member_("mm_mt"):
        # Since 6.1 (524e00b36e8c, 763ecb035029) they are in a maple tree alone.
        for entry in maple_tree.entries(space.member_("mm_mt"), budget):
            yield space.program_.object("vm_area_struct", entry.value)
        return
    yield from lists.chained(int(space.member_("mmap")), space.program_, "vm_area_struct", "vm_next", budget)


def resident_pages(space: Object) -> int | None:
    """Pages that are in memory: of files, anonymous, shared; as near as counters per CPU let it be without their parts."""
    total = 0
    counters = space.first_of_("rss_stat.count", "rss_stat")
    if counters is None:
        return None
    for kind in RESIDENT_KINDS:
        counter = counters[kind]
        # Since 6.2 (f1a7941243c1) each is a percpu_counter.
        total += _whole_count(counter) if counter.has_member_("counters") else int(counter.member_("counter"))
    return max(total, 0)


def _whole_count(counter: Object) -> int:
    """percpu_counter_sum(): the count with what CPUs have not handed in yet."""
    program = counter.program_
    total = int(counter.member_("count"))
    parts = counter.member_("counters")
    for cpu in range(min(program.linux.cpu_limit(), 8192)):
        try:
            address = int(parts) + program.linux.per_cpu_offset(cpu)
            total += int(program.value(parts.type_, address).deref_())
        except OrcdbgError:
            continue
    return total


def _area(area: Object, space: Object, budget: Budget) -> Area:
    start, end = int(area.member_("vm_start")), int(area.member_("vm_end"))
    flags = int(area.member_("vm_flags"))
    file = area.member_("vm_file")
    letters = "".join(letter if flags & bit else "-" for bit, letter in _PERMISSIONS)
    letters += "s" if flags & _MAY_SHARE else "p"
    offset = int(area.member_("vm_pgoff")) * PAGE if int(file) else 0
    name: str | None
    try:
        name = path_of(file.member_("f_path"), budget) if int(file) else _special_name(area, space, start, end)
    except OrcdbgError as error:
        budget.note_error("a mapped file's path", int(file), error)
        name = None
    return Area(area.address_ or 0, start, end, flags, letters, offset, int(file), name)


def _special_name(area: Object, space: Object, start: int, end: int) -> str:
    """As show_map_vma() and arch_vma_name() name what has no file."""
    special = _name_of_special_mapping(area)
    if special is not None:
        return special
    if start <= int(space.member_("brk")) and end >= int(space.member_("start_brk")):
        return "[heap]"
    if start <= int(space.member_("start_stack")) <= end:
        return "[stack]"
    return ""


def _name_of_special_mapping(area: Object) -> str | None:
    """`[vdso]`, `[vvar]`: special_mapping_name(), whose private data begins with the name."""
    operations = area.member_("vm_ops")
    if not int(operations):
        return None
    program = area.program_
    known = {program.linux.find_address(name) for name in ("special_mapping_vmops", "legacy_special_mapping_vmops")}
    if int(operations) not in known:
        return None
    mapping = program.value("struct vm_special_mapping *", int(area.member_("vm_private_data")))
    return mapping.member_("name").string_(64)
