"""How much memory is there, and what is it used for?

Mirrors fs/proc/meminfo.c, meminfo_proc_show(), and si_meminfo(), si_mem_available() of mm/show_mem.c. Counters are taken with
what CPUs have not handed in yet, which /proc/meminfo leaves out, so a value may differ from it by some pages a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import read_u64, signed
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.tasks import started_cpus
from orcdbg.subsystems import zones
from orcdbg.subsystems.kernel_variables import total_pages
from orcdbg.typed.program import Program

_MAX_SWAP_FILES = 64
_MAX_SPACES = 1 << 16


@dataclass(frozen=True, slots=True)
class MemoryTotals:
    """Memory as /proc/meminfo has it, in pages; None where this kernel's words for it are not known.

    Attributes:
        total: that the page allocator manages.
        free: in free blocks and what CPUs keep.
        available: what programs can be given without swapping, as the kernel guesses.
        buffers: cache of block devices.
        cached: cache of files, without buffers and swap cache.
        swap_cached: pages that are in memory and on swap.
        shared: tmpfs and shared memory.
        anonymous: mapped anonymous pages.
        mapped: mapped pages of files.
        dirty: waiting to be written.
        writeback: being written.
        slab_reclaimable: slabs that may shrink.
        slab_unreclaimable: other slabs.
        kernel_stacks: stacks of tasks.
        page_tables: page tables.
        vmalloc: pages of vmalloc areas.
        swap_total: swap space.
        swap_free: of it unused.
        committed: memory that was promised to programs.
        commit_limit: what may be promised under strict accounting.
    """

    total: int
    free: int
    available: int | None
    buffers: int | None
    cached: int | None
    swap_cached: int | None
    shared: int
    anonymous: int
    mapped: int
    dirty: int
    writeback: int
    slab_reclaimable: int
    slab_unreclaimable: int
    kernel_stacks: int
    page_tables: int
    vmalloc: int | None
    swap_total: int
    swap_free: int
    committed: int | None
    commit_limit: int | None


def memory_totals(program: Program, problems: list[str]) -> MemoryTotals:
    """Memory's totals.

    Args:
        program: the kernel's typed data.
        problems: is told what could not be read.
    """
    linux = program.linux
    count = zones.global_counters(program)

    def optional(read: object, what: str) -> int | None:
        assert callable(read)
        try:
            value = read()
        except OrcdbgError as error:
            problems.append(f"{what}: {error}")
            return None
        assert isinstance(value, int | None)
        return value

    buffers = optional(lambda: _buffers(program), "buffers")
    swap_cached = count.get("NR_SWAPCACHE")
    if swap_cached is None:
        swap_cached = optional(lambda: _swap_cached(program), "swap cache")
    cached = None
    if buffers is not None and swap_cached is not None:
        cached = max(count["NR_FILE_PAGES"] - buffers - swap_cached, 0)
    total = total_pages(linux)
    swap_total, swap_free = _word(linux, "total_swap_pages"), _word(linux, "nr_swap_pages")
    return MemoryTotals(
        total,
        count["NR_FREE_PAGES"],
        optional(lambda: _available(program, count), "available memory"),
        buffers,
        cached,
        swap_cached,
        count["NR_SHMEM"],
        count["NR_ANON_MAPPED"],
        count["NR_FILE_MAPPED"],
        count["NR_FILE_DIRTY"],
        count["NR_WRITEBACK"],
        # Since 5.9 (d42f3245c7e2) counted in bytes by cgroups, and still in pages here.
        count.get("NR_SLAB_RECLAIMABLE_B", count.get("NR_SLAB_RECLAIMABLE", 0)),
        count.get("NR_SLAB_UNRECLAIMABLE_B", count.get("NR_SLAB_UNRECLAIMABLE", 0)),
        count["NR_KERNEL_STACK_KB"] // 4,
        count.get("NR_PAGETABLE", 0),
        # Since 7.0 a counter of nodes, before one of its own.
        count["NR_VMALLOC"] if "NR_VMALLOC" in count else _find_word(linux, "nr_vmalloc_pages"),
        swap_total,
        max(signed(swap_free, 64), 0),
        optional(lambda: _per_cpu_counter(program, "vm_committed_as"), "committed memory"),
        optional(lambda: _commit_limit(linux, total, swap_total), "the limit of committed memory"),
    )


def _word(linux: Linux, name: str) -> int:
    return read_u64(linux.memory, linux.address(name))


def _find_word(linux: Linux, name: str) -> int | None:
    address = linux.find_address(name)
    return None if address is None else read_u64(linux.memory, address)


def _per_cpu_counter(program: Program, name: str) -> int:
    """percpu_counter_sum_positive(): the count with what CPUs have not handed in."""
    linux = program.linux
    counter = program.object("struct percpu_counter", linux.address(name))
    total = int(counter.member_("count"))
    pointer = int(counter.member_("counters"))
    for cpu in started_cpus(linux):
        data = linux.memory.read(pointer + linux.per_cpu_offset(cpu) & U64, 4)
        total += int.from_bytes(data, "little", signed=True)
    return max(total, 0)


def _buffers(program: Program) -> int:
    """nr_blockdev_pages(): what the inodes of block devices have in cache."""
    linux = program.linux
    budget = Budget(1 << 16)
    superblock = read_u64(linux.memory, linux.address("blockdev_superblock"))
    head = superblock + linux.types.offset("super_block", "s_inodes")
    total = 0
    for inode in linux.walk_list(head, "inode", "i_sb_list", budget):
        total += linux.member("address_space", "nrpages", linux.member("inode", "i_mapping", inode))
    return total


def _swap_cached(program: Program) -> int:
    """total_swapcache_pages() before 5.12 (b6038942480e): the pages of all swapper spaces."""
    linux = program.linux
    counts, spaces = linux.address("nr_swapper_spaces"), linux.address("swapper_spaces")
    size = linux.types.size("address_space")
    total = 0
    for number in range(_MAX_SWAP_FILES):
        first = read_u64(linux.memory, spaces + 8 * number)
        # Behind the last possible swap file are other variables; no file's table is there without its address.
        if not first >> 63:
            continue
        count = int.from_bytes(linux.memory.read(counts + 4 * number, 4), "little")
        for index in range(min(count, _MAX_SPACES)):
            total += linux.member("address_space", "nrpages", first + index * size)
    return total


def _available(program: Program, count: dict[str, int]) -> int:
    """si_mem_available()."""
    linux = program.linux
    budget = Budget(zones.MAX_ENTRIES)
    low = reserve = 0
    for node in zones.nodes(program, budget):
        reserve += linux.member("pglist_data", "totalreserve_pages", node.address)
        for zone in node.zones:
            boost = linux.member("zone", "watermark_boost", zone.address)
            low += zone.watermarks[1] + boost
    available = count["NR_FREE_PAGES"] - reserve
    cache = count["NR_ACTIVE_FILE"] + count["NR_INACTIVE_FILE"]
    available += cache - min(cache // 2, low)
    reclaimable = count.get("NR_SLAB_RECLAIMABLE_B", 0) + count.get("NR_KERNEL_MISC_RECLAIMABLE", 0)
    available += reclaimable - min(reclaimable // 2, low)
    return max(available, 0)


def _commit_limit(linux: Linux, total: int, swap: int) -> int:
    """vm_commit_limit(), without what huge pages take of it."""
    kilobytes = _find_word(linux, "sysctl_overcommit_kbytes")
    if kilobytes:
        return kilobytes // 4 + swap
    ratio = linux.memory.read(linux.address("sysctl_overcommit_ratio"), 4)
    return total * int.from_bytes(ratio, "little") // 100 + swap
