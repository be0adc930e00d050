"""A kernel with slabs, made by code: `struct page`s, caches, lists of CPUs, sheaves and nodes, free pointers hidden or not."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from orcdbg.base.errors import NotInSnapshot
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.subsystems.address_map import AddressMap
from orcdbg.subsystems.pages import Pages
from orcdbg.subsystems.slab import SlabAllocator
from orcdbg.typed.program import Program
from tests.build.btf import BtfBuilder
from tests.build.kernel import symbol_table

DIRECT_MAP = 0xFFFF_8880_0000_0000
PAGES = 0xFFFF_EA00_0000_0000
DATA = 0xFFFF_FFFF_8200_0000
FRAMES = 64
PAGE_STRUCT = 64
# Where things lie: in DATA the kernel's variables, in the direct map caches and what they keep.
VARIABLES = {"_text": 0, "nr_cpu_ids": 0x10, "nr_node_ids": 0x18, "max_pfn": 0x20, "slab_caches": 0x30}
PER_CPU_OFFSETS, END = 0x100, 0x1000
CACHE, CPU_SLAB, NODE, NAME = DIRECT_MAP + PAGE, DIRECT_MAP + 0x1800, DIRECT_MAP + 0x1A00, DIRECT_MAP + 0x1C00
SHEAVES, SHEAF, BARN, BARN_SHEAF = DIRECT_MAP + 0x1D00, DIRECT_MAP + 0x2000, DIRECT_MAP + 0x1E00, DIRECT_MAP + 0x2800
PG_SLAB, PG_HEAD = 9, 16
SLAB_RED_ZONE, SLAB_POISON = 0x400, 0x800
RANDOM = 0x1122_3344_5566_7788


class FlatMemory:
    """Memory in a few pieces, each a bytearray that tests write into."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self.pieces = {address: bytearray(size) for address, size in sizes.items()}

    def _piece(self, address: int, size: int) -> tuple[bytearray, int]:
        for start, data in self.pieces.items():
            if start <= address and address + size <= start + len(data):
                return data, address - start
        raise NotInSnapshot("virtual", address, size)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of one piece."""
        data, offset = self._piece(address, size)
        return bytes(data[offset : offset + size])

    def write(self, address: int, data: bytes) -> None:
        """Overwrites bytes of one piece."""
        piece, offset = self._piece(address, len(data))
        piece[offset : offset + len(data)] = data

    def words(self, address: int, *words: int) -> None:
        """Overwrites 64-bit words."""
        self.write(address, struct.pack(f"<{len(words)}Q", *words))


def _types(with_sheaves: bool) -> BtfBuilder:
    make = BtfBuilder()
    u8, u32, u64 = make.integer("u8", 1), make.integer("unsigned int", 4), make.integer("unsigned long", 8)
    pointer = make.pointer(0)
    heads = make.structure("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    make.enumeration("pageflags", [("PG_locked", 0), ("PG_slab", PG_SLAB), ("PG_reserved", 12), ("PG_head", PG_HEAD)])

    def members(
        *named: tuple[str, int, int], bits: Mapping[str, tuple[int, int]] | None = None
    ) -> list[tuple[str, int, int]]:
        plain = [(name, type_, 8 * offset) for name, type_, offset in named]
        return plain + [(name, u32, size << 24 | place) for name, (place, size) in (bits or {}).items()]

    page = members(
        ("flags", u64, 0),
        ("lru", heads, 8),
        ("compound_head", u64, 8),
        ("slab_list", heads, 8),
        ("next", pointer, 8),
        ("compound_order", u8, 17),
        ("mapping", pointer, 24),
        ("slab_cache", pointer, 24),
        ("index", u64, 32),
        ("freelist", pointer, 32),
        ("private", u64, 40),
        ("counters", u64, 40),
        ("page_type", u32, 48),
        ("_mapcount", u32, 48),
        ("_refcount", u32, 52),
        ("memcg_data", u64, 56),
        bits={"inuse": (320, 16), "objects": (336, 15), "frozen": (351, 1)},
    )
    make.structure("page", PAGE_STRUCT, page, flag=True)
    order = make.structure("kmem_cache_order_objects", 4, members(("x", u32, 0)))
    nodes = make.array(pointer, 2)
    cache = [
        ("cpu_sheaves" if with_sheaves else "cpu_slab", pointer, 0),
        ("flags", u32, 8),
        ("size", u32, 24),
        ("object_size", u32, 28),
        ("offset", u32, 40),
        ("oo", order, 48),
        ("refcount", u32, 64),
        ("ctor", pointer, 72),
        ("inuse", u32, 80),
        ("red_left_pad", u32, 88),
        ("name", pointer, 96),
        ("list", heads, 104),
        ("random", u64, 184),
        ("node", nodes, 216),
    ]
    make.structure("kmem_cache", 232, members(*cache))
    counter = make.structure("atomic_long_t", 8, members(("counter", u64, 0)))
    node = [("partial", heads, 16), ("nr_slabs", counter, 32), ("total_objects", counter, 40)]
    if with_sheaves:
        node.append(("barn", pointer, 48))
        make.structure(
            "slub_percpu_sheaves", 32, members(("main", pointer, 8), ("spare", pointer, 16), ("rcu_free", pointer, 24))
        )
        objects = make.array(pointer, 0)
        make.structure("slab_sheaf", 32, members(("barn_list", heads, 0), ("size", u32, 24), ("objects", objects, 32)))
        make.structure("node_barn", 48, members(("sheaves_full", heads, 8)))
    else:
        make.structure(
            "kmem_cache_cpu", 32, members(("freelist", pointer, 0), ("page", pointer, 16), ("partial", pointer, 24))
        )
    make.structure("kmem_cache_node", 64, members(*node))
    return make


class MadeSlabs:
    """One CPU, one node, one cache.

    Args:
        size: bytes from one object to the next.
        object_size: bytes of an object.
        random: what hides free pointers.
        red_left_pad: bytes before each object.
        with_sheaves: whether CPUs keep sheaves, as since 7.0, and not lists.
        with_debug: whether slub_debug keeps red zones and poison.
    """

    def __init__(
        self,
        size: int = 256,
        object_size: int = 200,
        random: int = RANDOM,
        red_left_pad: int = 0,
        with_sheaves: bool = False,
        with_debug: bool = False,
    ) -> None:
        self.memory = FlatMemory({DIRECT_MAP: FRAMES * PAGE, PAGES: FRAMES * PAGE_STRUCT, DATA: END})
        self.size, self.offset, self.random, self.red_left_pad = size, 8 * (object_size // 16), random, red_left_pad
        self._with_sheaves, self._with_debug, self._object_size = with_sheaves, with_debug, object_size
        # slub_debug keeps the free pointer behind the object and its red zone of a word.
        self._in_use = object_size + 8 * with_debug
        self.offset = self._in_use if with_debug else self.offset
        self._write_variables()
        self._write_cache(object_size)

    def _write_variables(self) -> None:
        memory = self.memory
        memory.words(DATA + VARIABLES["nr_cpu_ids"], 1, 1, FRAMES)
        self.list_head(DATA + VARIABLES["slab_caches"])
        memory.words(DATA + PER_CPU_OFFSETS, 0)

    def list_head(self, head: int, *nodes: int) -> None:
        """Writes a list with these nodes."""
        ring = [head, *nodes]
        for place, node in enumerate(ring):
            self.memory.words(node, ring[(place + 1) % len(ring)], ring[place - 1])

    def _write_cache(self, object_size: int) -> None:
        memory = self.memory
        per_slab = PAGE // self.size
        memory.words(CACHE, SHEAVES if self._with_sheaves else CPU_SLAB)
        memory.write(CACHE + 24, struct.pack("<II", self.size, object_size))
        memory.write(CACHE + 40, struct.pack("<IxxxxI", self.offset, per_slab))
        memory.write(CACHE + 64, struct.pack("<I", 1))
        memory.write(CACHE + 80, struct.pack("<IxxxxI", self._in_use, self.red_left_pad))
        memory.write(CACHE + 8, struct.pack("<I", (SLAB_RED_ZONE | SLAB_POISON) * self._with_debug))
        memory.words(CACHE + 96, NAME)
        memory.write(NAME, b"made\0")
        self.list_head(DATA + VARIABLES["slab_caches"], CACHE + 104)
        memory.words(CACHE + 184, self.random)
        memory.words(CACHE + 216, NODE)
        self.list_head(NODE + 16)
        if self._with_sheaves:
            memory.words(NODE + 48, BARN)
            self.list_head(BARN + 8)

    # Slabs

    def page(self, pfn: int) -> int:
        """Address of a `struct page`."""
        return PAGES + pfn * PAGE_STRUCT

    def objects(self, pfn: int) -> list[int]:
        """The objects of the slab in a frame."""
        first = DIRECT_MAP + pfn * PAGE + self.red_left_pad
        return [first + number * self.size for number in range(PAGE // self.size)]

    def hidden(self, pointer: int, place: int) -> int:
        """freelist_ptr()."""
        return pointer ^ self.random ^ int.from_bytes(place.to_bytes(8, "little"), "big")

    def chain(self, objects: Sequence[int], last: int = 0) -> int:
        """Writes a list of free objects; its first object."""
        for address, following in zip(objects, [*objects[1:], last], strict=False):
            place = address + self.offset
            self.memory.words(place, self.hidden(following, place))
        return objects[0] if objects else 0

    def slab(self, pfn: int, free: Sequence[int] = (), in_use: int | None = None, frozen: bool = False) -> int:
        """Makes a frame a slab with a list of free objects; the address of its `struct page`."""
        count = PAGE // self.size
        used = count - len(free) if in_use is None else in_use
        address = self.page(pfn)
        self.memory.words(address, 1 << PG_SLAB)
        counters = used & 0xFFFF | count << 16 | frozen << 31
        self.memory.words(address + 24, CACHE, self.chain(free), counters)
        self.memory.write(address + 48, struct.pack("<II", 0xFFFF_FFFF, 1))
        return address

    def mark(self, address: int, is_free: bool) -> None:
        """init_object(): red zones before and behind an object, and poison in a free one."""
        red = b"\xbb" if is_free else b"\xcc"
        body = b"\x6b" * (self._object_size - 1) + b"\xa5" if is_free else bytes(self._object_size)
        self.memory.write(address - self.red_left_pad, red * self.red_left_pad + body + red * 8)

    def active(self, page: int, free: Sequence[int]) -> None:
        """Makes a slab the one that the CPU allocates from, with the CPU's own list."""
        self.memory.words(CPU_SLAB, self.chain(free))
        self.memory.words(CPU_SLAB + 16, page)

    def sheaf(self, place: str, objects: Sequence[int], size: int | None = None) -> None:
        """Gives the CPU a sheaf of free objects (`main`, `spare`, `rcu_free`), or the node a full one (`node`)."""
        address = BARN_SHEAF if place == "node" else SHEAF + 0x200 * ("main", "spare", "rcu_free").index(place)
        self.memory.write(address + 24, struct.pack("<I", len(objects) if size is None else size))
        self.memory.words(address + 32, *objects)
        if place == "node":
            self.list_head(BARN + 8, address)
        else:
            self.memory.words(SHEAVES + 8 * (1 + ("main", "spare", "rcu_free").index(place)), address)

    def allocator(self) -> SlabAllocator:
        """The reader over it, which has read nothing yet."""
        symbols = {name: (DATA + offset, 8) for name, offset in VARIABLES.items()}
        symbols |= {"__per_cpu_offset": (DATA + PER_CPU_OFFSETS, 8), "_end": (DATA + END, 0)}
        linux = Linux(self.memory, symbol_table(symbols), _types(self._with_sheaves).built().structs, 0)
        return SlabAllocator(Pages(Program(linux, Names(linux)), AddressMap(linux, 4)))
