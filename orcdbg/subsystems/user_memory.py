"""What is in a task's memory at an address, and if nothing is: swapped, never touched, in a file, or guarded?

Walks the page table that `mm->pgd` names, which under page table isolation is the kernel's half of the pair and maps all that
the user's half does. Mirrors arch/x86/include/asm/pgtable_64.h for entries that are not present, include/linux/swap.h and
swapops.h for what they mean, and mm/filemap.c for pages of files that are in memory without being mapped.
"""

from __future__ import annotations

import bisect
import enum
import functools
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import BadAddress, MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import AddressSpace
from orcdbg.base.sizes import PAGE, U64
from orcdbg.base.walks import Budget
from orcdbg.snapshot.pagetables import KernelMemory, MappedRun, Translation
from orcdbg.subsystems.address_map import AddressMap
from orcdbg.subsystems.memory_maps import areas_of
from orcdbg.subsystems.paths import path_of
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.x86.paging import GLOBAL, PHYSICAL, PRESENT

MAX_AREAS = 1 << 20
# MAX_ARG_STRLEN times what a stack of 8 MiB lets through.
MAX_ARGUMENTS = 6 << 20
_MAX_ARGUMENT_COUNT = 1 << 16
# An entry that is not present: the type in the upper 5 bits, the offset inverted in bits 9 to 58.
_TYPE_SHIFT, _OFFSET_BITS, _OFFSET_SHIFT = 59, 50, 9
_MARKER = 31
# PTE_MARKER_GUARD (7c53dfbdb024, 6.13); the others are of userfaultfd, and of pages that were poisoned.
_MARKER_GUARD = 4
_XA_NODE_BITS, _XA_INTERNAL, _XA_LEAST_NODE = 3, 2, 4096
_MAX_LEVELS = 11  # 64 bits of index, 6 bits a node


class UserPageState(enum.Enum):
    """What is at a user address; the values are the JSON contract's words."""

    PRESENT = "present"
    NO_ACCESS = "present without access"
    """Mapped so that any access faults: PROT_NONE, or a page whose next user NUMA balancing waits for."""
    ZERO = "zero page"
    SWAPPED = "swapped"
    IN_PAGE_CACHE = "in page cache"
    """Not mapped into the task yet; the file's page is in memory, and is what the task would read."""
    IN_FILE = "in file"
    """Not in memory: the task's next access reads it from the file."""
    NEVER_TOUCHED = "never touched"
    """Anonymous memory that nobody wrote: the next read gives zeros."""
    MADE_ON_ACCESS = "made on access"
    """No page yet: a driver, or the kernel for its own areas such as [vvar], gives one at the first access."""
    MIGRATING = "migrating"
    HARDWARE_POISON = "hardware poison"
    DEVICE = "device memory"
    GUARD = "guard"
    MARKED = "marked"
    NO_AREA = "no area"
    """No area of the task holds the address: an access is a segmentation fault."""
    NOT_CANONICAL = "not canonical"
    TABLE_MISSING = "page table not in snapshot"


_ALIKE_WITHOUT_TABLE = (
    UserPageState.NEVER_TOUCHED,
    UserPageState.MADE_ON_ACCESS,
    UserPageState.NO_AREA,
    UserPageState.TABLE_MISSING,
)


@dataclass(frozen=True, slots=True)
class SwapPlace:
    """Where a page is on swap: the number of the swap file, its path where that can be read, and the page's number there."""

    type: int
    offset: int
    path: str | None


@dataclass(frozen=True, slots=True)
class UserPage:
    """What is at a user address.

    Attributes:
        address: it.
        state: what is there.
        physical: where in memory; None where it is not.
        size: of the page, 0 where there is none.
        translation: the entries on the way.
        area: address of the `vm_area_struct` that holds it; 0 where none does.
        file: path of the file that the area maps; None for other areas.
        file_offset: bytes into the file; None without.
        swap: where it is on swap; None where it is not.
    """

    address: int
    state: UserPageState
    physical: int | None
    size: int
    translation: Translation
    area: int
    file: str | None = None
    file_offset: int | None = None
    swap: SwapPlace | None = None


@dataclass(frozen=True, slots=True)
class UserStretch:
    """Pages of an area that follow each other, are in one state, and lie behind each other wherever that is.

    Attributes:
        first: the first of them.
        count: how many, in pages of 4 KiB.
    """

    first: UserPage
    count: int


class UserPageAbsent(BadAddress):
    """A user address has no memory in the snapshot; `state` says why."""

    def __init__(self, address: int, size: int, state: UserPageState) -> None:
        MemoryFault.__init__(self, "user", address, size, f"no memory there: {state.value}")
        self.state = state


@dataclass(frozen=True, slots=True)
class _Area:
    address: int
    start: int
    end: int
    file: int
    page_offset: int
    has_operations: bool


class UserMemory:
    """A task's memory: an AddressSpace of user addresses.

    Reads give what the task would read: pages of files that are in the page cache without being mapped, and zeros for
    anonymous memory that it never touched, too.

    Args:
        program: the kernel's typed data.
        task: its `task_struct`.
        physical: the machine's memory.
        kernel: the kernel's memory, for the number of levels and the encryption bit.
        places: of the kernel's address space.

    Attributes:
        space: the `mm_struct`, a pointer.

    Raises:
        NotFound: it has no user memory: it is a kernel thread, or ended.
    """

    def __init__(
        self, program: Program, task: Object, physical: AddressSpace, kernel: KernelMemory, places: AddressMap
    ) -> None:
        self.program = program
        self.space = task.member_("mm")
        if not int(self.space):
            raise NotFound(
                "user address space",
                f"that of task {int(task.member_('pid'))}",
                "it is a kernel thread, or ended; `set TASK` selects another",
            )
        self._physical = physical
        self._places = places
        self._kernel = kernel
        self.root = kernel.translate(int(self.space.member_("pgd")))
        self._tables = KernelMemory(physical, self.root, kernel.levels, kernel.encryption_mask)
        self._budget = Budget(MAX_AREAS)

    @property
    def problems(self) -> list[str]:
        """What could not be read of the task's areas."""
        return self._budget.lines()

    @functools.cached_property
    def _areas(self) -> Sequence[_Area]:
        found = []
        for area in areas_of(self.space, self._budget):
            try:
                found.append(
                    _Area(
                        area.address_ or 0,
                        int(area.member_("vm_start")),
                        int(area.member_("vm_end")),
                        int(area.member_("vm_file")),
                        int(area.member_("vm_pgoff")),
                        bool(int(area.member_("vm_ops"))),
                    )
                )
            except OrcdbgError as error:
                self._budget.note_error("an area of user memory", area.address_ or 0, error)
        return sorted(found, key=lambda area: area.start)

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [area.start for area in self._areas]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """[start, end) of the task's areas, by address."""
        return [(area.start, area.end) for area in self._areas]

    def stretches(self, start: int, end: int, budget: Budget) -> list[UserStretch]:
        """What is in each page of a range, those that continue each other together.

        Args:
            start: the first address, of a page.
            end: the first one behind.
            budget: a page takes one node, a large one too, and one that only its file can tell of two; pages that no
                table is there for take one together.
        """
        found: list[UserStretch] = []
        address = start
        while address < end and budget.take("pages of user memory", address):
            page = self.page(address)
            if page.state in (UserPageState.IN_FILE, UserPageState.IN_PAGE_CACHE) and not budget.take(
                "pages of user memory", address
            ):
                break
            # Terabytes are mapped without being touched, by programs that mean well too.
            behind = min(self._same_until(page), end)
            count = max((behind - address) // PAGE, 1)
            if found and _continues(found[-1], page):
                found[-1] = UserStretch(found[-1].first, found[-1].count + count)
            else:
                found.append(UserStretch(page, count))
            address += count * PAGE
        return found

    def _same_until(self, page: UserPage) -> int:
        """The first address for which another entry, or another area, may say something else than of this page."""
        if page.state is UserPageState.PRESENT:
            return (page.address & -page.size) + page.size
        area = self._area_at(page.address)
        is_files = area is not None and area.file != 0
        if page.state not in _ALIKE_WITHOUT_TABLE or is_files or not page.translation.entries:
            return page.address + PAGE
        following = bisect.bisect_right(self._starts, page.address)
        bounds = [self._starts[following]] if following < len(self._starts) else []
        bounds += [area.end] if area is not None else []
        span = 1 << _TABLE_SHIFTS.get(page.translation.entries[-1].level.value, 12)
        return min([(page.address & -span) + span, *bounds])

    def runs(self, start: int, end: int, budget: Budget) -> Iterator[MappedRun]:
        """What the task's page table maps of a range; the budget is of page tables."""
        return self._tables.runs(start, end, budget)

    def _area_at(self, address: int) -> _Area | None:
        place = bisect.bisect_right(self._starts, address) - 1
        return self._areas[place] if place >= 0 and address < self._areas[place].end else None

    # What is at an address

    def page(self, address: int) -> UserPage:
        """What is at an address."""
        translation = self._kernel.explain(address, self.root)
        area = self._area_at(address)
        file, offset = self._file_of(area, address)

        def as_state(
            state: UserPageState, physical: int | None = None, size: int = 0, swap: SwapPlace | None = None
        ) -> UserPage:
            place = area.address if area is not None else 0
            return UserPage(address, state, physical, size, translation, place, file, offset, swap)

        if translation.physical is not None:
            is_zero = self._is_zero_page(translation)
            state = UserPageState.ZERO if is_zero else UserPageState.PRESENT
            return as_state(state, translation.physical, translation.size)
        if not translation.entries:
            return as_state(UserPageState.NOT_CANONICAL)
        entry = translation.entries[-1].value
        if entry & PRESENT:
            return as_state(UserPageState.TABLE_MISSING)
        if entry:
            return self._absent(entry, translation, as_state(UserPageState.MARKED))
        return self._untouched(address, area, as_state(UserPageState.NO_AREA))

    def _absent(self, entry: int, translation: Translation, page: UserPage) -> UserPage:
        """A page by an entry that has something, and is not present."""
        shift = _SHIFTS.get(translation.entries[-1].level.value, 12)
        if entry & GLOBAL:
            # _PAGE_PROTNONE. The frame's number is inverted (6b28baca9b1f, 4.19), so that no attacker's cache line is named.
            low = (1 << shift) - 1
            physical = ~entry & PHYSICAL & ~self._kernel.encryption_mask & ~low | page.address & low
            return _with(page, UserPageState.NO_ACCESS, physical, low + 1)
        type_ = entry >> _TYPE_SHIFT
        offset = (~entry & U64) >> _OFFSET_SHIFT & (1 << _OFFSET_BITS) - 1
        if type_ < self._swap_files:
            return _with(page, UserPageState.SWAPPED, swap=SwapPlace(type_, offset, self._swap_path(type_)))
        if type_ == _MARKER and self.program.catalog.find("", "pte_marker") is not None:
            return _with(page, UserPageState.GUARD if offset & _MARKER_GUARD else UserPageState.MARKED)
        return _with(page, self._special(type_))

    def _special(self, type_: int) -> UserPageState:
        """What types behind those of swap files mean: include/linux/swap.h."""
        number = type_ - self._swap_files
        has_poison = self.program.linux.symbols.find("memory_failure") is not None
        if has_poison and number == 0:
            return UserPageState.HARDWARE_POISON
        # Since 5.19 (6c287605fd56) a third type is for pages that are one process's alone.
        migrations = 3 if self.program.catalog.enumerator("PG_anon_exclusive") is not None else 2
        return UserPageState.MIGRATING if number - has_poison < migrations else UserPageState.DEVICE

    def _untouched(self, address: int, area: _Area | None, page: UserPage) -> UserPage:
        """A page that no entry is there for."""
        if area is None:
            return page
        if not area.file:
            state = UserPageState.MADE_ON_ACCESS if area.has_operations else UserPageState.NEVER_TOUCHED
            return _with(page, state)
        physical = None
        has_pages = False
        try:
            mode = int(self.program.object("file", area.file).member_("f_inode").member_("i_mode"))
            has_pages = stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFBLK)
            physical = self._cached(area, address)
        except OrcdbgError as error:
            self._budget.note_error("a file's pages in memory", area.file, error)
        if physical is None:
            return _with(page, UserPageState.IN_FILE if has_pages else UserPageState.MADE_ON_ACCESS)
        return _with(page, UserPageState.IN_PAGE_CACHE, physical + address % PAGE, PAGE)

    # Files

    @functools.cached_property
    def _paths(self) -> dict[int, str | None]:
        return {}

    def _file_of(self, area: _Area | None, address: int) -> tuple[str | None, int | None]:
        if area is None or not area.file:
            return None, None
        if area.file not in self._paths:
            try:
                file = self.program.object("file", area.file)
                self._paths[area.file] = path_of(file.member_("f_path"), self._budget)
            except OrcdbgError as error:
                self._budget.note_error("a mapped file's path", area.file, error)
                self._paths[area.file] = None
        return self._paths[area.file], area.page_offset * PAGE + address - area.start

    def _cached(self, area: _Area, address: int) -> int | None:
        """The physical address of the page of a file that an area's address stands for; None where it is not in memory."""
        index = area.page_offset + (address - area.start) // PAGE
        mapping = self.program.object("file", area.file).member_("f_mapping")
        entry = load(mapping.member_("i_pages"), index)
        # A number in place of a pointer is a page of shared memory that is swapped, or a trace of one that was dropped.
        if not entry or entry & 1:
            return None
        page = self._places.pfn_of(entry)
        if page is None:
            return None
        first = self.program.object("page", entry)
        # A large folio is entered under the index of its first page.
        start = int(first.first_of_("index", "__folio_index") or 0)
        return (page + max(index - start, 0)) * PAGE if index - start < 1 << 18 else None

    # Swap

    @functools.cached_property
    def _swap_files(self) -> int:
        """MAX_SWAPFILES, which depends on the configuration: the length of the table."""
        symbol = self.program.linux.symbols.find("swap_info")
        return symbol.size // 8 if symbol is not None and 0 < symbol.size // 8 <= 32 else 0

    def _swap_path(self, type_: int) -> str | None:
        linux = self.program.linux
        try:
            table = self.program.value("struct swap_info_struct **", linux.address("swap_info"))
            file = table[type_].member_("swap_file")
            return path_of(file.member_("f_path"), self._budget) if int(file) else None
        except OrcdbgError:
            return None

    # Zeros

    @functools.cached_property
    def _zero_frames(self) -> tuple[int | None, int | None]:
        """The frames of the small and of the large page of zeros."""
        linux = self.program.linux
        small = large = None
        try:
            address = linux.find_address("empty_zero_page")
            small = None if address is None else self._kernel.translate(address) // PAGE
            address = linux.find_address("huge_zero_pfn")
            large = None if address is None else int.from_bytes(linux.memory.read(address, 8), "little")
        except MemoryFault:
            pass
        return small, large

    def _is_zero_page(self, translation: Translation) -> bool:
        frame = (translation.physical or 0) // PAGE
        small, large = self._zero_frames
        return frame == small if translation.size == PAGE else large is not None and frame & ~511 == large

    # Reading

    def read(self, address: int, size: int) -> bytes:
        """What the task would read.

        Raises:
            UserPageAbsent: a page is not in memory.
            NotInSnapshot: it is, and was not saved.
        """
        parts = []
        end = address + size
        for start in range(address - address % PAGE, end, PAGE):
            first, last = max(start, address), min(start + PAGE, end)
            try:
                parts.append(self._tables.read(first, last - first))
            except BadAddress:
                parts.append(self._read_absent(first, last - first))
        return b"".join(parts)

    def _read_absent(self, address: int, size: int) -> bytes:
        page = self.page(address)
        if page.state is UserPageState.NEVER_TOUCHED:
            return bytes(size)
        if page.physical is None:
            raise UserPageAbsent(address, size, page.state)
        return self._physical.read(page.physical, size)

    def arguments(self) -> list[str]:
        """The words of the command line, as the task has them now: it may have written over them."""
        return self._words("arg_start", "arg_end")

    def environment(self) -> list[str]:
        """The environment, as it was at exec()."""
        return self._words("env_start", "env_end")

    def _words(self, first: str, last: str) -> list[str]:
        start, end = int(self.space.member_(first)), int(self.space.member_(last))
        size = end - start
        if not 0 < size <= MAX_ARGUMENTS:
            return []
        data = self.read(start, min(size, MAX_ARGUMENTS))
        words = data.removesuffix(b"\0").split(b"\0")[:_MAX_ARGUMENT_COUNT]
        return [word.decode("utf-8", "backslashreplace") for word in words]


_SHIFTS = {"PMD": 21, "PUD": 30}
# A top entry of five levels is for more, which is then gone through in parts.
_TABLE_SHIFTS = {**_SHIFTS, "P4D": 39, "PGD": 39}


def _continues(stretch: UserStretch, page: UserPage) -> bool:
    """Whether a page is in the state of those before it, and lies behind them."""
    first, count = stretch.first, stretch.count
    if page.state is not first.state or (first.swap is None) != (page.swap is None):
        return False
    if first.swap is not None and page.swap is not None:
        return (page.swap.type, page.swap.offset) == (first.swap.type, first.swap.offset + count)
    if first.physical is None or page.physical is None or page.state is UserPageState.ZERO:
        return first.physical is None or page.state is UserPageState.ZERO
    return page.physical == first.physical + count * PAGE


def _with(
    page: UserPage,
    state: UserPageState,
    physical: int | None = None,
    size: int = 0,
    swap: SwapPlace | None = None,
) -> UserPage:
    return UserPage(page.address, state, physical, size, page.translation, page.area, page.file, page.file_offset, swap)


def load(array: Object, index: int) -> int:
    """xa_load(): the entry of an xarray at an index, 0 without. Mirrors lib/xarray.c.

    Args:
        array: the `struct xarray`.
        index: below 2^64.

    Raises:
        MemoryFault: a node on the way cannot be read.
    """
    program = array.program_
    entry = int(array.member_("xa_head"))
    for _ in range(_MAX_LEVELS):
        if entry & _XA_NODE_BITS != _XA_INTERNAL or entry < _XA_LEAST_NODE:
            break
        node = program.object("xa_node", entry - _XA_INTERNAL & U64)
        shift = int(node.member_("shift"))
        slots = node.member_("slots")
        if index >> min(shift, 63) >= len(slots) and index >> min(shift, 63) >> 6:
            return 0  # beyond what the tree's height reaches
        slot = index >> min(shift, 63) & len(slots) - 1
        entry = int(slots[slot])
        # An entry of several slots: the others lead to its first (xa_is_sibling()).
        if entry & _XA_NODE_BITS == _XA_INTERNAL and entry >> 2 < len(slots):
            entry = int(slots[entry >> 2])
        index &= (1 << shift) - 1
    return 0 if entry & _XA_NODE_BITS == _XA_INTERNAL else entry
