"""What does the kernel know of a page frame: its flags, whose it is, which larger page it is part of?

Mirrors include/linux/mm_types.h, page-flags.h, mm.h, and mm/debug.c, which prints the same of a page.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, UnsupportedFormat
from orcdbg.base.sizes import PAGE, U64
from orcdbg.kernel.linux import Linux
from orcdbg.snapshot.pagetables import KernelMemory
from orcdbg.subsystems.address_map import MAX_PHYSICAL, AddressMap
from orcdbg.typed.program import Program

# MAX_ORDER of a kernel with gigantic pages: 1 GiB is order 18.
MAX_ORDER = 30
# Low bits of page.mapping (include/linux/page-flags.h).
_MAPPING_ANON, _MAPPING_MOVABLE, _MAPPING_FLAGS = 1, 2, 3
# Page types before there was an enumeration of them (6.10); a type is a bit that is clear. The base is 0xf0000000.
_TYPE_BASE = 0xF000_0000
_OLD_TYPES = {0x80: "buddy", 0x100: "offline"}
# Until 5.10 kmemcg had the place of table.
_TYPES_WITH_KMEMCG = {0x200: "kmemcg", 0x400: "table", 0x800: "guard"}
_TYPES_WITHOUT_KMEMCG = {0x200: "table", 0x400: "guard"}


class PageUse(enum.Enum):
    """What a page is used for; the values are the JSON contract's words."""

    FREE = "free"
    SLAB = "slab"
    ANONYMOUS = "anonymous"
    FILE = "file"
    PAGE_TABLE = "page table"
    RESERVED = "reserved"
    HUGETLB = "hugetlb"
    OFFLINE = "offline"
    MOVABLE = "movable"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class PageFrame:
    """A page frame as its `struct page` describes it.

    Attributes:
        address: of the `struct page`.
        pfn: the frame's number.
        flags: page.flags, of the page itself.
        flag_names: their names.
        type_name: of its type, such as `buddy`, `slab`; None where it has none.
        use: what it is used for.
        head: address of the `struct page` of the compound page that it is in; its own where it is in none.
        order: of that compound page, or of a free block; None where it is neither.
        references: _refcount, of the page itself.
        mapping: page.mapping of the head, without its flag bits; 0 without.
        index: where in the mapping it is, in pages, of the head.
        private: page.private of the page itself.
        map_count: how often it is mapped, as far as its own counter says; None where the word is a type.
    """

    address: int
    pfn: int
    flags: int
    flag_names: tuple[str, ...]
    type_name: str | None
    use: PageUse
    head: int
    order: int | None
    references: int
    mapping: int
    index: int
    private: int
    map_count: int | None

    @property
    def physical(self) -> int:
        """The frame's physical address."""
        return self.pfn * PAGE

    @property
    def is_tail(self) -> bool:
        """Whether it is a part of a compound page, and not its first."""
        return self.head != self.address


class Pages:
    """Reads `struct page`s of one kernel.

    Args:
        program: the kernel's typed data.
        places: where its pages are described.
        memory_end: gives the first physical address behind all memory that can be there, whatever the kernel's own numbers say;
            who looks at all page frames ends there.
    """

    def __init__(
        self, program: Program, places: AddressMap, memory_end: Callable[[], int] = lambda: MAX_PHYSICAL
    ) -> None:
        self.program = program
        self.places = places
        self._linux: Linux = program.linux
        self.size = places.page_struct_size
        self.memory_end = memory_end

    def _offset(self, *paths: str) -> int:
        """Where the first of several members is that this kernel's `struct page` has."""
        for path in paths:
            found = self._linux.types.find("page", path)
            if found is not None:
                return found.offset
        raise NotFound("member", f"page.{paths[0]}")

    def is_mapped(self, address: int) -> bool:
        """Whether the page tables may have something at an address: one look, no more."""
        memory = self._linux.memory
        return not isinstance(memory, KernelMemory) or memory.is_mapped(address)

    # Names

    @functools.cached_property
    def flag_bits(self) -> Mapping[int, tuple[str, ...]]:
        """Names of each flag's bit number, by `enum pageflags`, without their `PG_`."""
        enumeration = self.program.type("enum pageflags")
        names: dict[int, tuple[str, ...]] = {}
        for name, bit in getattr(enumeration, "enumerators", ()):
            # The count of flags stands among them.
            if name.startswith("PG_") and 0 <= bit < 64:
                names[bit] = (*names.get(bit, ()), name.removeprefix("PG_"))
        return names

    def bit_of(self, name: str) -> int | None:
        """The number of a flag's bit, None where this kernel has no such flag."""
        return next((bit for bit, names in self.flag_bits.items() if name in names), None)

    def flag_names(self, flags: int) -> tuple[str, ...]:
        """Names of the flags that are set; of a bit that several uses share the first, as the kernel prints it."""
        found = [names[0] for bit, names in sorted(self.flag_bits.items()) if flags >> bit & 1]
        # A page of the swap cache has a bit that means other things to pages of files (PAGEFLAG(SwapCache)).
        is_anonymous = self._has(flags, "swapbacked")
        shared = self.flag_bits.get(self._bits.get("swapcache", -1), ("",))[0]
        return tuple("swapcache" if is_anonymous and name == shared else name for name in found)

    @functools.cached_property
    def _types(self) -> tuple[Mapping[int, str], Mapping[int, str]]:
        """Names of page types: by the uppermost byte, and by the bit that is clear; this kernel has one kind."""
        if self.program.catalog.find("enum", "pagetype") is None:
            later = _TYPES_WITHOUT_KMEMCG if self._linux.types.has("page", "memcg_data") else {}
            earlier = _TYPES_WITH_KMEMCG if self._linux.types.has("page", "mem_cgroup") else {}
            return {}, {**_OLD_TYPES, **later, **earlier}
        enumerators = getattr(self.program.type("enum pagetype"), "enumerators", ())
        # Since 6.12 (4ffca5a96678) a number in the uppermost byte; 6.10 and 6.11 have bits in an enumeration (46df8e73a4a3).
        numbers = {value: name.removeprefix("PGTY_") for name, value in enumerators if name.startswith("PGTY_")}
        # The uppermost number is that of a page without mappings, whose counter is -1.
        numbers.pop(0xFF, None)
        bits = {value: name.removeprefix("PG_") for name, value in enumerators if name.startswith("PG_")}
        return numbers, bits

    def type_name(self, word: int) -> str | None:
        """The name of a page's type, by its word; None where that counts mappings."""
        numbers, bits = self._types
        if numbers:
            return numbers.get(word >> 24) if word >> 31 else None
        if word & _TYPE_BASE != _TYPE_BASE or word == 0xFFFF_FFFF:
            return None
        return next((name for bit, name in bits.items() if not word & bit), None)

    # Pages

    def read(self, address: int) -> PageFrame:
        """The page whose `struct page` is at an address.

        Raises:
            MemoryFault: it cannot be read.
            UnsupportedFormat: it is in no array of pages.
        """
        pfn = self.places.pfn_of(address)
        if pfn is None or (address - self.places.vmemmap) % self.size:
            raise UnsupportedFormat(f"{address:#x}", "no struct page: it is not in vmemmap, or not at one's start")
        data = self._linux.memory.read(address, self.size)
        head = self.head_of(address, data)
        head_data = data if head == address else self._linux.memory.read(head, self.size)
        flags = self.flags_in(data)
        word = self.type_word_in(head_data)
        name = self.type_name(word)
        use = self._use(self.flags_in(head_data), name, self._word(head_data, self._mapping))
        order = self._order(head, head_data, use)
        mapping = self._word(head_data, self._mapping) if use in _WITH_MAPPING else 0
        return PageFrame(
            address,
            pfn,
            flags,
            self.flag_names(flags),
            name or ("slab" if use is PageUse.SLAB else None),
            use,
            head,
            order,
            self._half(data, self._refcount),
            mapping & ~_MAPPING_FLAGS & U64,
            self._word(head_data, self._index) if use in _WITH_MAPPING else 0,
            self._word(data, self._private),
            None if self.type_name(self.type_word_in(data)) is not None else self._map_count(data, use),
        )

    def at(self, pfn: int) -> PageFrame:
        """The page of a frame number; errors as of `read`."""
        return self.read(self.places.page_at(pfn))

    def of_physical(self, physical: int) -> PageFrame:
        """The page that holds a physical address; errors as of `read`."""
        return self.at(physical // PAGE)

    def _map_count(self, data: bytes, use: PageUse) -> int | None:
        if use not in _WITH_MAPPING:
            return None
        # The counter begins at -1.
        return (self._half(data, self._mapcount) + 1) & 0xFFFF_FFFF

    def _use(self, flags: int, type_name: str | None, mapping: int) -> PageUse:
        if self.is_slab(flags, type_name):
            return PageUse.SLAB
        if type_name in _USES:
            return _USES[type_name]
        if self._has(flags, "reserved"):
            return PageUse.RESERVED
        if not mapping:
            return PageUse.OTHER
        # Slab pages, and pages of other owners, have other words there; those that lists of pages hold, or swap, have not.
        if mapping & _MAPPING_FLAGS == _MAPPING_MOVABLE:
            return PageUse.MOVABLE
        if mapping & _MAPPING_ANON and self._is_kernel(mapping):
            return PageUse.ANONYMOUS
        return PageUse.FILE if self._is_kernel(mapping) else PageUse.OTHER

    @staticmethod
    def _is_kernel(pointer: int) -> bool:
        return bool(pointer >> 63) and pointer < U64 - 4096

    def is_slab(self, flags: int, type_name: str | None) -> bool:
        """Whether a head page is a slab: by its type since 6.10 (46df8e73a4a3), by a flag before."""
        return type_name == "slab" or self._has(flags, "slab")

    def _has(self, flags: int, name: str) -> bool:
        bit = self._bits.get(name)
        return bit is not None and bool(flags >> bit & 1)

    @functools.cached_property
    def _bits(self) -> Mapping[str, int]:
        return {name: bit for bit, names in self.flag_bits.items() for name in names}

    # Words of a struct page

    @functools.cached_property
    def _flags(self) -> int:
        return self._offset("flags")

    @functools.cached_property
    def _mapping(self) -> int:
        return self._offset("mapping")

    @functools.cached_property
    def _index(self) -> int:
        # 6.16 and later name it for folios alone.
        return self._offset("index", "__folio_index")

    @functools.cached_property
    def _private(self) -> int:
        return self._offset("private")

    @functools.cached_property
    def _refcount(self) -> int:
        return self._offset("_refcount")

    @functools.cached_property
    def _mapcount(self) -> int:
        return self._offset("_mapcount")

    @functools.cached_property
    def _type(self) -> int:
        return self._offset("page_type")

    @functools.cached_property
    def _compound(self) -> int:
        # Renamed in 7.1 (d50569612c29).
        return self._offset("compound_head", "compound_info")

    @staticmethod
    def _word(data: bytes, offset: int) -> int:
        return int.from_bytes(data[offset : offset + 8], "little")

    @staticmethod
    def _half(data: bytes, offset: int) -> int:
        return int.from_bytes(data[offset : offset + 4], "little")

    def flags_in(self, data: bytes) -> int:
        """The flags of a `struct page`'s bytes."""
        return self._word(data, self._flags)

    def type_word_in(self, data: bytes) -> int:
        """The word that counts a page's mappings, or has its type."""
        return self._half(data, self._type)

    def head_of(self, address: int, data: bytes) -> int:
        """The first `struct page` of the compound page that one is in, by its bytes; its own address where it is in none."""
        info = self._word(data, self._compound)
        if not info & 1:
            return address
        # Since 7.1 (8c846c879e22) it may be a mask that leads from a tail's address to its head's.
        head = address & info if info >> 44 == (1 << 20) - 1 and not self._is_in_vmemmap(info - 1) else info - 1
        return head & U64 if self._is_in_vmemmap(head) and not (head - self.places.vmemmap) % self.size else address

    def _is_in_vmemmap(self, address: int) -> bool:
        return self.places.pfn_of(address) is not None

    def _order(self, head: int, data: bytes, use: PageUse) -> int | None:
        """compound_order(), or the order of a free block, which the allocator keeps in `private`."""
        if use is PageUse.FREE:
            order = self._word(data, self._private)
            return order if order <= MAX_ORDER else None
        if not self._has(self.flags_in(data), "head"):
            return None
        # Since 6.6 (ebc1baf5c9b4) in the flags of the first tail page, before in a byte of its own.
        byte = self._order_place
        if byte is None:
            return None
        second = self._linux.memory.read(head + byte & U64, 1)[0]
        return second if second <= MAX_ORDER else None

    @functools.cached_property
    def _order_place(self) -> int | None:
        """Bytes from the head's `struct page` to the byte with the order."""
        types = self._linux.types
        for struct, path, start in (
            ("folio", "_flags_1", 0),
            ("folio", "_folio_order", 0),
            ("page", "compound_order", self.size),
        ):
            # A folio of 6.1 has _flags_1 too, and its order elsewhere.
            if path == "_flags_1" and (types.has("folio", "_folio_order") or types.has("page", "compound_order")):
                continue
            found = types.find(struct, path)
            if found is not None:
                return start + found.offset
        return None


_USES = {
    "buddy": PageUse.FREE,
    "table": PageUse.PAGE_TABLE,
    "offline": PageUse.OFFLINE,
    "hugetlb": PageUse.HUGETLB,
}
_WITH_MAPPING = frozenset({PageUse.ANONYMOUS, PageUse.FILE, PageUse.MOVABLE, PageUse.HUGETLB})
