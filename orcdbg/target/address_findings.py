"""What is this address?

Each finding is something that memory itself shows: a symbol, a slab object, a page, an area, a stack, a variable of a CPU, user
memory of a task; or that nothing is mapped, and at which level of page tables. A type is a guess, and is called one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.kernel.module_sections import module_sections
from orcdbg.kernel.modules import Module
from orcdbg.kernel.names import Location
from orcdbg.kernel.stacks import Stack
from orcdbg.kernel.tasks import Task
from orcdbg.patches.site import PatchSite
from orcdbg.snapshot.pagetables import Translation
from orcdbg.subsystems.address_map import Region
from orcdbg.subsystems.page_owner import PageOwner, owner_of
from orcdbg.subsystems.pages import PageFrame, PageUse
from orcdbg.subsystems.per_cpu_areas import PerCpuPlace
from orcdbg.subsystems.slab import ObjectPart, SlabObject
from orcdbg.subsystems.slab_debug import SlabDebug, slab_debug
from orcdbg.subsystems.user_memory import UserPage
from orcdbg.subsystems.vmalloc import VmallocArea
from orcdbg.target.session import Session
from orcdbg.typed.types import CompoundType, IncompleteType, resolved


@dataclass(frozen=True, slots=True)
class RegionFinding:
    """The area of the address space that it is in, and how it is translated."""

    region: Region
    translation: Translation


@dataclass(frozen=True, slots=True)
class SymbolFinding:
    """The symbol that holds it, and the section of the image or module that it is in."""

    location: Location | None
    section: str | None
    module: Module | None
    offset: int


@dataclass(frozen=True, slots=True)
class PatchFinding:
    """A place that the kernel patched holds it."""

    site: PatchSite


@dataclass(frozen=True, slots=True)
class SlabFinding:
    """It is in a slab.

    Attributes:
        slab: the object.
        debug: what slub_debug kept of it, None without.
        guess: the structure that the cache is named after, where no other cache was merged into it; None where there is none.
        member: the member of that structure at the address.
        also: names of the caches that were merged into this one, as far as the kernel still knows them.
        symbols: the symbol of each address in code that `debug` names.
    """

    slab: SlabObject
    debug: SlabDebug | None
    guess: str | None
    member: str | None
    also: tuple[str, ...]
    symbols: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class PageFinding:
    """Its page frame, and whose that is."""

    page: PageFrame
    owner: PageOwner | None


@dataclass(frozen=True, slots=True)
class PageStructFinding:
    """It is itself in the `struct page` of a page."""

    page: PageFrame
    owner: PageOwner | None
    offset: int


@dataclass(frozen=True, slots=True)
class VmallocFinding:
    """An area of the vmalloc space holds it; `caller` names the code that asked for the area."""

    area: VmallocArea
    caller: str | None


@dataclass(frozen=True, slots=True)
class PerCpuFinding:
    """It is in a CPU's copy of per-CPU memory."""

    place: PerCpuPlace


@dataclass(frozen=True, slots=True)
class StackFinding:
    """It is on a stack; `task` is the task whose own that is."""

    stack: Stack
    task: Task | None


@dataclass(frozen=True, slots=True)
class UserFinding:
    """It is user memory of a task."""

    task: Task
    page: UserPage


@dataclass(frozen=True, slots=True)
class PhysicalFinding:
    """As a physical address it is memory, at `virtual` in the direct map; the findings after this one are of that."""

    virtual: int


@dataclass(frozen=True, slots=True)
class ProblemFinding:
    """Something could not be looked at."""

    what: str


Finding = (
    RegionFinding
    | SymbolFinding
    | PatchFinding
    | SlabFinding
    | PageFinding
    | PageStructFinding
    | VmallocFinding
    | PerCpuFinding
    | StackFinding
    | UserFinding
    | PhysicalFinding
    | ProblemFinding
)


def describe_address(session: Session, address: int, task: Task | None = None) -> list[Finding]:
    """All that memory shows of an address.

    Args:
        session: the stopped kernel.
        address: virtual; one below all of the kernel's may be a physical one, too.
        task: whose user memory an address of user space is looked for in.
    """
    return list(_Describing(session, address, task).findings())


class _Describing:
    """One address being looked at from all sides; what cannot be read costs its own finding alone."""

    def __init__(self, session: Session, address: int, task: Task | None) -> None:
        self._session = session
        self._parts = session.kernel_memory
        self._address = address
        self._task = task
        self._budget = Budget(1 << 16)

    def findings(self) -> Iterator[Finding]:
        """Each finding, the surest first."""
        address = self._address
        region = self._parts.places.region(address)
        if region is Region.USER:
            yield from self._tried(self._user)
            if address < self._parts.places.memory_end:
                yield from self._tried(self._physical)
        else:
            translation = self._session.memory.explain(address)
            yield RegionFinding(region, translation)
            for look in (self._symbol, self._patch, self._stack, self._per_cpu, self._vmalloc):
                yield from self._tried(look)
            if region is Region.VMEMMAP:
                yield from self._tried(self._page_struct)
            else:
                yield from self._tried(lambda: self._memory(address, translation))
        for problem in self._budget.lines():
            yield ProblemFinding(problem)

    def _tried(self, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        try:
            yield from look()
        except OrcdbgError as error:
            yield ProblemFinding(str(error))

    def _user(self) -> Iterator[Finding]:
        if self._task is None or self._task.is_kernel_thread:
            return
        page = self._parts.user_memory(self._task).page(self._address)
        yield UserFinding(self._task, page)
        if page.physical is not None and page.physical < self._parts.places.memory_end:
            physical = page.physical
            yield from self._tried(lambda: self._frame(physical, None))

    def _physical(self) -> Iterator[Finding]:
        virtual = self._parts.places.virtual_of(self._address)
        yield PhysicalFinding(virtual)
        yield from self._tried(lambda: self._frame(self._address, virtual))

    def _symbol(self) -> Iterator[Finding]:
        session, address = self._session, self._address
        location = session.names.at(address)
        module = session.names.module_at(address)
        section = self._section(module)
        if location is not None or module is not None or section is not None:
            start = location.start if location is not None else address
            yield SymbolFinding(location, section, module, address - start)

    def _section(self, module: Module | None) -> str | None:
        session, address = self._session, self._address
        if module is None:
            start, end = session.names.image_range
            inside = start <= address < end
            found = session.image.section_at(address - session.slide) if inside else None
            return found.name if found is not None else None
        try:
            sections = module_sections(session.linux, module)
        except OrcdbgError:
            return None  # a kernel without sysfs keeps none
        # Their ends are kept nowhere; the last one that begins before the address, in the same area.
        area = next(((start, start + size) for start, size in module.ranges if start <= address < start + size), None)
        inside_area = {name: at for name, at in sections.items() if area is not None and area[0] <= at <= address}
        return max(inside_area, key=lambda name: inside_area[name], default=None)

    def _patch(self) -> Iterator[Finding]:
        session = self._session
        if session.image.is_memory or not session.is_text(self._address):
            return
        cluster = session.ledger.find(self._address)
        for site in cluster.sites if cluster is not None else ():
            if site.address <= self._address < site.address + site.size:
                yield PatchFinding(site)

    def _stack(self) -> Iterator[Finding]:
        found = self._parts.stack_at(self._address)
        if found is not None:
            yield StackFinding(*found)

    def _per_cpu(self) -> Iterator[Finding]:
        place = self._parts.per_cpu.at(self._address)
        if place is not None:
            yield PerCpuFinding(place)

    def _vmalloc(self) -> Iterator[Finding]:
        area = self._parts.vmalloc.at(self._address)
        if area is not None:
            yield VmallocFinding(area, self._session.names.describe(area.caller) if area.caller else None)

    def _page_struct(self) -> Iterator[Finding]:
        places = self._parts.places
        pfn = places.pfn_of(self._address)
        if pfn is None:
            return
        page = self._parts.pages.at(pfn)
        yield PageStructFinding(page, self._owner(page), self._address - page.address)

    def _memory(self, address: int, translation: Translation) -> Iterator[Finding]:
        places = self._parts.places
        # The direct map's own arithmetic counts where its page is not mapped, as of memory that was taken out of it.
        in_direct_map = places.in_direct_map(address)
        physical = places.physical_of(address) if in_direct_map else translation.physical
        if physical is None or physical >= places.memory_end:
            return
        yield from self._frame(physical, address if in_direct_map else None)

    def _frame(self, physical: int, address: int | None) -> Iterator[Finding]:
        """Page frame and slab object of a physical address.

        Args:
            physical: it.
            address: its own in the direct map; None where it was reached by another.
        """
        page = self._parts.pages.of_physical(physical)
        slabs = self._parts.find_slabs()
        if address is not None and page.use is PageUse.SLAB and slabs is not None:
            found = slabs.object_at(address, page)
            if found is not None:
                yield self._slab(found)
        yield PageFinding(page, self._owner(page))

    def _slab(self, found: SlabObject) -> SlabFinding:
        cache = found.cache
        guess, member = self._guess(found)
        try:
            debug = slab_debug(self._session.linux, found)
        except (MemoryFault, NotFound):
            debug = None
        also = tuple(self._parts.slabs.names_merged_into(cache))
        return SlabFinding(found, debug, guess, member, also, self._symbols(debug))

    def _symbols(self, debug: SlabDebug | None) -> dict[int, str]:
        """Symbols of callers and of return addresses."""
        tracks = [] if debug is None else [debug.allocation, debug.free]
        found: dict[int, str] = {}
        for track in tracks:
            for address in () if track is None else (track.caller, *track.stack):
                name = self._session.names.describe(address, exact=False)
                if name is not None:
                    found[address] = name
        return found

    def _guess(self, found: SlabObject) -> tuple[str | None, str | None]:
        cache = found.cache
        name = _STRUCTURES.get(cache.name, cache.name)
        if cache.is_merged or found.part is not ObjectPart.OBJECT:
            return None, None
        type_ = self._session.program.catalog.find("struct", name)
        plain = None if type_ is None else resolved(type_)
        if plain is None or isinstance(plain, IncompleteType) or not isinstance(plain, CompoundType):
            return None, None
        # The kernel cuts a task_struct short behind the registers that its CPU has (arch_task_struct_size).
        if plain.size > cache.object_size and name != "task_struct":
            return None, None
        return name, member_at(plain, found.offset)

    def _owner(self, page: PageFrame) -> PageOwner | None:
        return owner_of(self._session.program, page, self._budget)


def member_at(type_: CompoundType, offset: int) -> str | None:
    """The name of the direct member that holds an offset; None in padding."""
    for name in type_.member_names:
        member = type_.member(name)
        start = member.bit_offset // 8
        if start <= offset < max(start + member.type.size, start + 1):
            return name
    return None


# Caches that are named otherwise than what they hold, in kernels from 5.10 to 7.2.
_STRUCTURES = {
    "filp": "file",
    "cred_jar": "cred",
    "files_cache": "files_struct",
    "fs_cache": "fs_struct",
    "names_cache": "filename",
    "mnt_cache": "mount",
    "sock_inode_cache": "socket_alloc",
    "shmem_inode_cache": "shmem_inode_info",
    "proc_inode_cache": "proc_inode",
    "ext4_inode_cache": "ext4_inode_info",
    "inode_cache": "inode",
    "sighand_cache": "sighand_struct",
    "signal_cache": "signal_struct",
    "skbuff_head_cache": "sk_buff",
    "kernfs_node_cache": "kernfs_node",
    "radix_tree_node": "xa_node",
    "bdev_cache": "bdev_inode",
    "TCP": "tcp_sock",
    "UDP": "udp_sock",
    "UNIX": "unix_sock",
}
