"""A task with user memory, made by code: its page table, three areas, a file with pages in memory."""

from __future__ import annotations

import struct

from orcdbg.base.reading import AddressSpace
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.subsystems.address_map import AddressMap
from orcdbg.subsystems.user_memory import UserMemory
from orcdbg.symbols import btf as kinds
from orcdbg.typed.program import Program
from tests.build.btf import BtfBuilder
from tests.build.kernel import symbol_table
from tests.build.memory import PageTableBuilder
from tests.build.slabs import DATA, DIRECT_MAP, FRAMES, PAGE_STRUCT, PAGES, FlatMemory

PAGE = 4096
FREE_AREA, FILE_AREA, MADE_AREA = 0x10_0000, 0x20_0000, 0x30_0000
AREA_SIZE = 16 * PAGE
# In the direct map, which is physical memory from 0 on; page tables begin at 1 MiB, in memory of their own.
TASK, MM, VMAS, FILE, INODE, MAPPING, NODE = (DIRECT_MAP + 0x1_0000 + 0x400 * number for number in range(7))
PGD = 0x10_0000
MAX_PFN = DATA + 0x20
_FILE_MODE = 0o100644


def swap_entry(type_: int, offset: int) -> int:
    """__swp_entry() of arch/x86/include/asm/pgtable_64.h."""
    return type_ << 59 | (~offset << 14 & (1 << 64) - 1) >> 5


def _types() -> BtfBuilder:
    make = BtfBuilder()
    u8, u16, u64 = (make.integer(f"u{8 * size}", size) for size in (1, 2, 8))
    integer = make.integer("int", 4, 1)
    pointer = make.pointer(0)

    def structure(name: str, size: int, *members: tuple[str, int, int]) -> int:
        return make.structure(name, size, [(title, type_, 8 * offset) for title, type_, offset in members])

    structure("page", PAGE_STRUCT, ("index", u64, 32))
    array = structure("xarray", 16, ("xa_head", pointer, 8))
    structure("xa_node", 576, ("shift", u8, 0), ("slots", make.array(pointer, 64), 64))
    mapping = make.pointer(structure("address_space", 64, ("i_pages", array, 8)))
    inode = make.pointer(structure("inode", 64, ("i_mode", u16, 0)))
    path = structure("path", 16, ("mnt", pointer, 0), ("dentry", pointer, 8))
    file = structure("file", 64, ("f_inode", inode, 0), ("f_mapping", mapping, 8), ("f_path", path, 16))
    # The structure points to itself; the pointer to it is made behind it, and so has the number after its own.
    files = make.pointer(file)
    area = structure(
        "vm_area_struct",
        64,
        ("vm_start", u64, 0),
        ("vm_end", u64, 8),
        ("vm_next", files + 2, 16),
        ("vm_file", files, 24),
        ("vm_pgoff", u64, 32),
        ("vm_ops", pointer, 40),
    )
    own = make.pointer(area)
    words = [(name, u64) for name in ("arg_start", "arg_end", "env_start", "env_end")]
    space = structure(
        "mm_struct",
        64,
        ("mmap", own, 0),
        ("pgd", pointer, 8),
        *((name, type_, 16 + 8 * number) for number, (name, type_) in enumerate(words)),
    )
    structure("task_struct", 64, ("mm", make.pointer(space), 0), ("pid", integer, 8))
    make.add("pte_marker", kinds.TYPEDEF, u64)
    make.enumeration("pageflags", [("PG_locked", 0), ("PG_anon_exclusive", 17)])
    return make


class MadeTask:
    """A task; what is in its page table is entered page by page."""

    def __init__(self, with_memory: bool = True) -> None:
        self.memory = FlatMemory({DIRECT_MAP: FRAMES * PAGE, PAGES: FRAMES * PAGE_STRUCT, DATA: 0x1000})
        self.memory.words(MAX_PFN, 1 << 20)
        self._tables = PageTableBuilder(4, first=PGD)
        self._entries: dict[int, int] = {}
        memory = self.memory
        memory.words(TASK, MM if with_memory else 0, 7)
        memory.words(MM, VMAS, DIRECT_MAP + PGD)
        areas = ((FREE_AREA, 0, 0), (FILE_AREA, FILE, 0), (MADE_AREA, 0, DATA))
        for number, (start, file, operations) in enumerate(areas):
            place = VMAS + 64 * number
            following = place + 64 if number + 1 < len(areas) else 0
            memory.words(place, start, start + AREA_SIZE, following, file, 0, operations)
        memory.words(FILE, INODE, MAPPING)
        memory.write(INODE, struct.pack("<H", _FILE_MODE))

    def enter(self, address: int, entry: int) -> None:
        """Puts an entry into the task's page table."""
        self._entries[address] = entry

    def map(self, address: int, physical: int, data: bytes) -> None:
        """Maps a page, and writes to it."""
        self.enter(address, physical | 7)
        self.memory.write(DIRECT_MAP + physical, data)

    def cache(self, index: int, frame: int, data: bytes) -> None:
        """Gives the file a page in memory."""
        self.memory.words(MAPPING + 16, NODE + 2)
        self.memory.words(NODE + 64 + 8 * index, PAGES + frame * PAGE_STRUCT)
        self.memory.words(PAGES + frame * PAGE_STRUCT + 32, index)
        self.memory.write(DIRECT_MAP + frame * PAGE, data)

    def arguments(self, start: int, end: int) -> None:
        """Where the command line is."""
        self.memory.words(MM + 16, start, end)

    @property
    def kernel(self) -> KernelMemory:
        """The kernel's memory; its root maps nothing of the task's."""
        return _Kernel(self)

    def physical(self) -> AddressSpace:
        """The machine's memory, with the page table as it is now."""
        for address, entry in self._entries.items():
            self._tables.map(address, 0)
            self._set(address, entry)
        return _Physical(self)

    def _set(self, address: int, entry: int) -> None:
        table = self._tables.tables[self._tables.root]
        for shift in (39, 30, 21):
            table = self._tables.tables[table[address >> shift & 511] & ~0xFFF]
        table[address >> 12 & 511] = entry

    def table(self, address: int) -> bytes | None:
        """A page table's bytes."""
        entries = self._tables.tables.get(address - address % PAGE)
        return None if entries is None else struct.pack("<512Q", *entries)

    def user_memory(self) -> UserMemory:
        """The reader over it."""
        symbols = {"_text": (DATA, 8), "max_pfn": (MAX_PFN, 8), "_end": (DATA + 0x1000, 0)}
        symbols |= {"swap_info": (DATA + 0x100, 8 * 23), "memory_failure": (DATA + 0x40, 8)}
        linux = Linux(self.memory, symbol_table(symbols), _types().built().structs, 0)
        program = Program(linux, Names(linux))
        task = program.object("task_struct", TASK)
        return UserMemory(program, task, self.physical(), self.kernel, AddressMap(linux, 4))


class _Physical:
    def __init__(self, made: MadeTask) -> None:
        self._made = made

    def read(self, address: int, size: int) -> bytes:
        """Page tables, or what the direct map shows."""
        table = self._made.table(address)
        if table is not None:
            return table[address % PAGE : address % PAGE + size]
        return self._made.memory.read(DIRECT_MAP + address, size)


class _Kernel(KernelMemory):
    def __init__(self, made: MadeTask) -> None:
        super().__init__(made.physical(), 0, 4)

    def translate(self, address: int) -> int:
        """The direct map's arithmetic."""
        return address - DIRECT_MAP if address >> 63 else super().translate(address)
