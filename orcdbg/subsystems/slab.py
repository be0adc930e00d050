"""Which slab object is at this address, and is it allocated or free, by what proof?

Mirrors mm/slub.c, mm/slab.h. An object is free where a list of free objects has it: that of its slab, that of the CPU that
allocates from the slab (until 6.19), or a sheaf, an array of free objects that a CPU or a node keeps (since 6.18). It is
allocated only where all of these were read whole and none has it.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from orcdbg.base.errors import Corrupt, MemoryFault, NotFound, OrcdbgError
from orcdbg.base.reading import read_cstring, read_u64
from orcdbg.base.sizes import PAGE, U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.tasks import started_cpus
from orcdbg.subsystems.pages import PageFrame, Pages, PageUse

# A slab is at most 32 KiB unless its object is larger (slub_max_order 3), MAX_ORDER in any case.
MAX_SLAB_SIZE = 4 << 20
MAX_OBJECTS = (1 << 15) - 1  # slab.objects has 15 bits
MAX_CACHES = 1 << 14
MAX_NODES = 1024
# Slabs on the lists of one cache: those of all dentries of a large machine.
MAX_SLABS = 1 << 21
# A sheaf has 4 to 60 objects in 7.2; its count has 32 bits.
MAX_SHEAF = 1 << 12
MAX_SHEAVES = 1 << 14
_MAX_NAME = 128
# Flags of a cache by their names in `enum _slab_flag_bits` (6.9), and their values before there was one (include/linux/slab.h).
_FLAG_NAMES = ("RED_ZONE", "POISON", "STORE_USER", "TYPESAFE_BY_RCU", "RECLAIM_ACCOUNT", "CONSISTENCY_CHECKS")
_OLD_FLAGS = {
    "CONSISTENCY_CHECKS": 0x100,
    "RED_ZONE": 0x400,
    "POISON": 0x800,
    "STORE_USER": 0x10000,
    "RECLAIM_ACCOUNT": 0x20000,
    "TYPESAFE_BY_RCU": 0x80000,
}
# include/linux/poison.h.
POISON_FREE, POISON_END, POISON_INUSE, RED_INACTIVE, RED_ACTIVE = 0x6B, 0xA5, 0x5A, 0xBB, 0xCC


class ObjectState(enum.Enum):
    """What the lists say of an object; the values are the JSON contract's words."""

    ALLOCATED = "allocated"
    FREE = "free"
    UNKNOWN = "unknown"


class Proof(enum.Enum):
    """Where an object was found to be free, or why it is taken for allocated, or why that is not known."""

    SLAB_LIST = "on its slab's free list"
    CPU_LIST = "on a CPU's free list"
    SHEAF = "in a CPU's sheaf"
    SPARE_SHEAF = "in a CPU's spare sheaf"
    RCU_SHEAF = "in a CPU's sheaf of objects that wait for a grace period"
    NODE_SHEAF = "in a node's full sheaf"
    ON_NO_LIST = "on no list of free objects, all of which were read"
    NO_OBJECT = "between objects"
    LIST_BROKEN = "a list of free objects is broken"


class SlabPlace(enum.Enum):
    """On which list a slab is."""

    CPU = "a CPU's own"
    CPU_PARTIAL = "on a CPU's partial list"
    NODE_PARTIAL = "on its node's partial list"
    FULL = "full, on no list"
    UNLISTED = "not found on a list"


class ObjectPart(enum.Enum):
    """Which part of an object's place in the slab an address is in."""

    OBJECT = "object"
    LEFT_RED_ZONE = "left red zone"
    BEHIND = "behind the object: red zone, free pointer, tracks or padding"
    UNUSED = "slab's unused end"


@dataclass(frozen=True, slots=True)
class SlabCache:
    """A `kmem_cache`.

    Attributes:
        address: of the `kmem_cache`.
        name: its name: the first of those that were merged.
        size: bytes from one object to the next.
        object_size: bytes that its user has.
        offset: of the free pointer in a free object.
        random: what hides free pointers (CONFIG_SLAB_FREELIST_HARDENED); None without.
        red_left_pad: bytes of red zone before each object.
        in_use: bytes up to what debugging keeps behind an object.
        flags: slab_flags_t.
        users: how many caches were merged into this one.
        objects_per_slab: of a slab of the usual order.
        order: that order.
        constructor: address of the function that makes objects; 0 without.
        debug: names of debugging flags that are set.
    """

    address: int
    name: str
    size: int
    object_size: int
    offset: int
    random: int | None
    red_left_pad: int
    in_use: int
    flags: int
    users: int
    objects_per_slab: int
    order: int
    constructor: int
    debug: frozenset[str]

    @property
    def is_merged(self) -> bool:
        """Whether caches of other names share it."""
        return self.users > 1


@dataclass(frozen=True, slots=True)
class Slab:
    """A slab: a compound page full of objects.

    Attributes:
        page: address of its `struct slab`, which is its first `struct page`.
        start: virtual address of its memory.
        size: bytes of it, as far as its objects go where nothing says more.
        cache: address of its `kmem_cache`.
        objects: how many it has.
        in_use: how many of them its own counter takes for allocated.
        is_frozen: whether a CPU allocates from it.
        free_list: the first object of its own free list, 0 where that is empty.
    """

    page: int
    start: int
    size: int
    cache: int
    objects: int
    in_use: int
    is_frozen: bool
    free_list: int


@dataclass(frozen=True, slots=True)
class FreeList:
    """The objects on a list, in its order; `broken` says where and why it breaks, None where it is whole."""

    objects: tuple[int, ...]
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class SlabObject:
    """An address as a part of a slab object.

    Attributes:
        cache: of the object.
        slab: of the object.
        place: on which list the slab is.
        place_cpu: which CPU's.
        number: the object's number in the slab; None behind the last object.
        start: the object's address, behind its red zone.
        offset: bytes from there to the address; negative in the red zone before it.
        part: which part of the object's place the address is in.
        state: whether it is allocated.
        proof: by what.
        proof_cpu: whose list or sheaf has it; None where that is no CPU's.
        problems: what is broken of the lists.
    """

    cache: SlabCache
    slab: Slab
    place: SlabPlace
    place_cpu: int | None
    number: int | None
    start: int
    offset: int
    part: ObjectPart
    state: ObjectState
    proof: Proof
    proof_cpu: int | None
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Lists:
    """What CPUs and nodes keep of one cache: free objects, and slabs."""

    free: dict[int, tuple[Proof, int | None]] = field(default_factory=dict)
    slabs: dict[int, tuple[SlabPlace, int | None]] = field(default_factory=dict)
    # CPUs' lists that break, by slab: an object of that slab which is on no list is of unknown state.
    broken_slabs: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    # A list of sheaves that breaks may hide any object.
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """How full a cache is.

    Attributes:
        cache: the cache.
        slabs: how many slabs its nodes count; None where the kernel does not count (CONFIG_SLUB_DEBUG).
        objects: how many objects they have.
        free: how many of these are free: on lists of slabs, CPUs and nodes.
        partial: slabs on the nodes' partial lists.
        problems: what is broken of the lists.
    """

    cache: SlabCache
    slabs: int | None
    objects: int | None
    free: int
    partial: int
    problems: tuple[str, ...] = ()

    @property
    def allocated(self) -> int | None:
        """Objects that are not free."""
        return None if self.objects is None else max(self.objects - self.free, 0)


class SlabAllocator:
    """SLUB's caches, slabs and objects in a stopped kernel.

    Args:
        pages: reads pages.

    Raises:
        NotFound: the kernel's types have no `kmem_cache` of SLUB: it uses SLAB or SLOB (until 6.7), or its BTF is damaged.
    """

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self._linux: Linux = pages.program.linux
        self._program = pages.program
        types = self._linux.types
        if not types.has("kmem_cache", "oo"):
            raise NotFound("SLUB", "kmem_cache.oo", "slab objects are known of kernels with SLUB")
        # Since 5.17 (d122019bf061) a slab has a structure of its own, over the struct page.
        self._struct = "slab" if types.has("slab", "slab_cache") else "page"
        self._caches: dict[int, SlabCache] = {}
        self._lists: dict[int, _Lists] = {}
        # Of the lists of all caches together: each of thousands of false caches may claim the lists of a large machine.
        self._budget = Budget(2 * MAX_SLABS)

    # Layouts

    def _slab_offset(self, path: str) -> int:
        return self._linux.types.offset(self._struct, path)

    @functools.cached_property
    def _slab_fields(self) -> tuple[int, int, int, int, int]:
        """Offsets of cache, free list and counters in a slab, and the bits of `objects` and `frozen` in the counters."""
        types = self._linux.types
        counters = self._slab_offset("counters")
        objects = types.find(self._struct, "objects")
        frozen = types.find(self._struct, "frozen")
        if objects is None or frozen is None:
            raise NotFound("member", f"{self._struct}.objects")
        return (
            self._slab_offset("slab_cache"),
            self._slab_offset("freelist"),
            counters,
            objects.bit_offset - 8 * counters,
            frozen.bit_offset - 8 * counters,
        )

    @functools.cached_property
    def _list_offset(self) -> int:
        return self._slab_offset("slab_list")

    @functools.cached_property
    def _flag_values(self) -> Mapping[str, int]:
        if self._program.catalog.find("enum", "_slab_flag_bits") is None:
            return _OLD_FLAGS
        enumerators = dict(getattr(self._program.type("enum _slab_flag_bits"), "enumerators", ()))
        bits = {name: enumerators.get(f"_SLAB_{name}") for name in _FLAG_NAMES}
        return {name: 1 << bit for name, bit in bits.items() if bit is not None and 0 <= bit < 64}

    # Caches

    def cache(self, address: int) -> SlabCache:
        """The cache whose `kmem_cache` is at an address.

        Raises:
            MemoryFault: it cannot be read.
            Corrupt: no cache can be so.
        """
        if address not in self._caches:
            self._caches[address] = self._read_cache(address)
        return self._caches[address]

    def _read_cache(self, address: int) -> SlabCache:
        member = functools.partial(self._linux.member, "kmem_cache", address=address)
        types = self._linux.types
        size, object_size = member("size"), member("object_size")
        oo = member("oo.x")
        objects, order = oo & 0xFFFF, oo >> 16
        red_left_pad = member("red_left_pad") if types.has("kmem_cache", "red_left_pad") else 0
        offset, in_use = member("offset"), member("inuse")
        if not 8 <= size <= MAX_SLAB_SIZE or object_size > size or red_left_pad > size or offset > size - 8:
            raise Corrupt(
                f"kmem_cache at {address:#x}: {size} bytes a place, {object_size} an object, free pointer at {offset}"
            )
        flags = member("flags")
        name = read_cstring(self._linux.memory, member("name"), _MAX_NAME).decode("utf-8", "backslashreplace")
        users = member("refcount")
        return SlabCache(
            address,
            name,
            size,
            object_size,
            offset,
            member("random") if types.has("kmem_cache", "random") else None,
            red_left_pad,
            in_use,
            flags,
            users if users < 1 << 31 else users - (1 << 32),
            objects,
            order,
            member("ctor"),
            frozenset(name for name, bit in self._flag_values.items() if flags & bit),
        )

    def caches(self, budget: Budget) -> Iterator[SlabCache]:
        """All caches, in the kernel's order; what cannot be read is the budget's."""
        for address in self._linux.walk_list(self._linux.address("slab_caches"), "kmem_cache", "list", budget):
            try:
                yield self.cache(address)
            except OrcdbgError as error:
                budget.note_error("a slab cache", address, error)

    def find_cache(self, name: str) -> SlabCache:
        """The cache of a name, also of one that was merged into another, where the kernel still knows it by that.

        Raises:
            NotFound: there is none.
        """
        budget = Budget(MAX_CACHES)
        for cache in self.caches(budget):
            if cache.name == name:
                return cache
        for alias, address in self.aliases(Budget(MAX_CACHES)).items():
            if alias == name:
                return self.cache(address)
        raise NotFound("slab cache", name, "`kmem -s` lists them")

    @functools.cached_property
    def _aliases(self) -> tuple[dict[str, int], list[str]]:
        budget = Budget(MAX_CACHES)
        try:
            return dict(self._read_aliases(budget)), budget.lines()
        except OrcdbgError as error:
            return {}, [*budget.lines(), f"names of merged caches: {error}"]

    def aliases(self, budget: Budget) -> dict[str, int]:
        """Names that were merged into caches of other names, with the cache's address.

        By the symbolic links in /sys/kernel/slab, as sysfs_slab_alias() makes them.
        """
        del budget  # its own bound is MAX_CACHES, and it is read once
        return self._aliases[0]

    def _read_aliases(self, budget: Budget) -> Iterator[tuple[str, int]]:
        from orcdbg.subsystems.containers import rbtree

        program = self._program
        address = self._linux.find_address("slab_kset")
        if address is None or program.catalog.find("struct", "kernfs_node") is None:
            return
        link = program.catalog.enumerator("KERNFS_LINK")
        folder = program.value("struct kset *", read_u64(self._linux.memory, address)).member_("kobj.sd")
        if link is None or not int(folder):
            return
        for node in rbtree.entries(folder.member_("dir.children"), "kernfs_node", "rb", budget):
            try:
                if not int(node.member_("flags")) & link[1]:
                    continue
                target = node.member_("symlink.target_kn").member_("priv")
                kobject = program.value("struct kobject *", int(target))
                cache = int(kobject.container_of_("kmem_cache", "kobj"))
                name = node.member_("name").string_(_MAX_NAME)
                if self.cache(cache).name != name:
                    yield name, cache
            except OrcdbgError as error:
                budget.note_error("the name of a merged cache", node.address_ or 0, error)

    def names_merged_into(self, cache: SlabCache) -> list[str]:
        """The names of caches that share one, as far as the kernel still knows them."""
        if not cache.is_merged:
            return []
        return sorted(name for name, address in self._aliases[0].items() if address == cache.address)

    # Slabs

    def slab_of(self, page: PageFrame) -> Slab | None:
        """The slab that a page is of; None where it is of none.

        Raises:
            MemoryFault: it cannot be read.
            Corrupt: no slab can be so.
        """
        if page.use is not PageUse.SLAB:
            return None
        slab = self._read_slab(page.head)
        return slab if page.order is None else replace(slab, size=max(slab.size, PAGE << page.order))

    def _read_slab(self, head: int) -> Slab:
        data = self._linux.memory.read(head, self.pages.size)
        pfn = self.pages.places.pfn_of(head)
        if pfn is None:
            raise Corrupt(f"slab at {head:#x}: not in the array of pages")
        at_cache, at_list, at_counters, objects_bit, frozen_bit = self._slab_fields
        counters = int.from_bytes(data[at_counters : at_counters + 8], "little")
        objects = counters >> objects_bit & 0x7FFF
        cache = int.from_bytes(data[at_cache : at_cache + 8], "little")
        size = self.cache(cache).size * objects
        if size > MAX_SLAB_SIZE:
            raise Corrupt(f"slab at {head:#x}: {objects} objects of {size // max(objects, 1)} bytes")
        return Slab(
            head,
            self.pages.places.virtual_of(pfn * PAGE),
            -(-size // PAGE) * PAGE,
            cache,
            objects,
            counters & 0xFFFF,
            bool(counters >> frozen_bit & 1),
            int.from_bytes(data[at_list : at_list + 8], "little"),
        )

    def slabs_of(self, cache: SlabCache, budget: Budget) -> Iterator[Slab]:
        """All slabs of a cache, full ones too, by their addresses; for these all page frames are looked at."""
        from orcdbg.subsystems.page_scan import slabs_of

        for head in slabs_of(self.pages, cache.address, self._slab_fields[0], budget):
            try:
                slab = self.slab_of(self.pages.read(head))
            except OrcdbgError as error:
                budget.note_error("a slab", head, error)
                continue
            if slab is not None:
                yield slab

    def object_addresses(self, slab: Slab) -> range:
        """The addresses of a slab's objects, behind their red zones."""
        cache = self.cache(slab.cache)
        first = slab.start + cache.red_left_pad
        return range(first, first + cache.size * slab.objects, cache.size)

    # Free lists

    def free_list(self, slab: Slab, first: int) -> FreeList:
        """The objects on a list of free objects of a slab.

        Each free pointer must be one of the slab's objects, and each object on the list once: what breaks that is a list
        that was overwritten.

        Args:
            slab: the slab that all of them must be of.
            first: the first object, 0 of an empty list.
        """
        cache = self.cache(slab.cache)
        objects = self.object_addresses(slab)
        found: list[int] = []
        seen: set[int] = set()
        address = first
        last = "its head"
        try:
            data = self._linux.memory.read(slab.start, slab.size) if first else b""
        except MemoryFault as error:
            return FreeList((), f"the slab at {slab.start:#x} cannot be read: {error}")
        for _ in range(MAX_OBJECTS + 1):
            if not address:
                return FreeList(tuple(found))
            if address not in objects:
                return FreeList(tuple(found), f"{last} leads to {address:#x}, which is no object of the slab")
            if address in seen:
                return FreeList(tuple(found), f"{last} leads back to {address:#x}")
            seen.add(address)
            found.append(address)
            place = address + cache.offset - slab.start
            if place + 8 > len(data):
                return FreeList(tuple(found), f"the free pointer of {address:#x} is outside of the slab")
            last = f"the free pointer of {address:#x}"
            word = int.from_bytes(data[place : place + 8], "little")
            address = self._decoded(cache, word, slab.start + place, objects)
        return FreeList(tuple(found), "longer than any list")

    def _decoded(self, cache: SlabCache, word: int, place: int, objects: range) -> int:
        """freelist_ptr(): since 5.7 (1ad53d9fa3f6) the place's bytes are swapped before they hide a pointer.

        Nothing in the kernel's data tells which of both it does; the one that leads to an object of the slab is right.
        """
        if cache.random is None:
            return word
        swapped = int.from_bytes(place.to_bytes(8, "little"), "big")
        address = word ^ cache.random ^ swapped
        if address and address not in objects:
            plain = word ^ cache.random ^ place
            if not plain or plain in objects:
                return plain
        return address

    # What CPUs and nodes keep

    def lists_of(self, cache: SlabCache) -> _Lists:
        """What CPUs and nodes keep of a cache; read once."""
        if cache.address not in self._lists:
            self._lists[cache.address] = self._read_lists(cache)
        return self._lists[cache.address]

    def _read_lists(self, cache: SlabCache) -> _Lists:
        lists = _Lists()
        budget = self._budget.share(MAX_SLABS)
        for cpu in started_cpus(self._linux):
            if not budget.take("CPUs of slab caches", cache.address):
                break
            for read in (self._read_cpu, self._read_sheaves):
                try:
                    read(cache, cpu, lists, budget)
                except OrcdbgError as error:
                    lists.problems.append(f"CPU {cpu}: {error}")
                    lists.is_whole = False
        for node, barn in self._nodes(cache, lists):
            try:
                self._read_node(node, lists, budget)
                self._read_barn(cache, barn, lists, budget)
            except OrcdbgError as error:
                lists.problems.append(str(error))
                lists.is_whole = False
        lists.problems += budget.lines()
        lists.is_whole = lists.is_whole and budget.is_whole
        self._budget.settle(budget)
        return lists

    def _read_cpu(self, cache: SlabCache, cpu: int, lists: _Lists, budget: Budget) -> None:
        """kmem_cache_cpu, which 7.0 (32c894c7274b) removed in favour of sheaves."""
        types = self._linux.types
        if not types.has("kmem_cache", "cpu_slab"):
            return
        area = self._linux.member("kmem_cache", "cpu_slab", cache.address) + self._linux.per_cpu_offset(cpu) & U64
        member = "slab" if types.has("kmem_cache_cpu", "slab") else "page"
        active = self._linux.member("kmem_cache_cpu", member, area)
        if active:
            lists.slabs[active] = (SlabPlace.CPU, cpu)
            slab = self._read_slab(active)
            if slab.cache != cache.address:
                lists.problems.append(f"CPU {cpu}: the slab at {active:#x} is of another cache")
            elif budget.take("pages of CPUs' slabs", active, 1 + slab.size // PAGE):
                chain = self.free_list(slab, self._linux.member("kmem_cache_cpu", "freelist", area))
                lists.free.update(dict.fromkeys(chain.objects, (Proof.CPU_LIST, cpu)))
                if chain.broken is not None:
                    lists.broken_slabs[active] = f"the free list of CPU {cpu}: {chain.broken}"
        if types.has("kmem_cache_cpu", "partial"):
            following = functools.partial(self._linux.member, self._struct, "next")
            first = self._linux.member("kmem_cache_cpu", "partial", area)
            for address in self._chain(first, following, budget, f"the partial slabs of CPU {cpu}"):
                lists.slabs.setdefault(address, (SlabPlace.CPU_PARTIAL, cpu))

    def _chain(self, first: int, following: functools.partial[int], budget: Budget, what: str) -> Iterator[int]:
        from orcdbg.base.walks import Chain

        return iter(Chain(first, following, budget, what))

    def _read_sheaves(self, cache: SlabCache, cpu: int, lists: _Lists, budget: Budget) -> None:
        """slub_percpu_sheaves, since 6.18 (2d517aa09bbc)."""
        if not self._linux.types.has("kmem_cache", "cpu_sheaves"):
            return
        pointer = self._linux.member("kmem_cache", "cpu_sheaves", cache.address)
        if not pointer:
            return
        area = pointer + self._linux.per_cpu_offset(cpu) & U64
        for path, proof in (("main", Proof.SHEAF), ("spare", Proof.SPARE_SHEAF), ("rcu_free", Proof.RCU_SHEAF)):
            if not self._linux.types.has("slub_percpu_sheaves", path):
                continue
            sheaf = self._linux.member("slub_percpu_sheaves", path, area)
            if sheaf:
                self._read_sheaf(sheaf, proof, cpu, lists, budget)

    def _read_sheaf(self, sheaf: int, proof: Proof, cpu: int | None, lists: _Lists, budget: Budget) -> None:
        size = self._linux.member("slab_sheaf", "size", sheaf)
        if size > MAX_SHEAF:
            raise Corrupt(f"the sheaf at {sheaf:#x} has {size} objects")
        budget.entries(size, sheaf, "objects in sheaves")
        data = self._linux.memory.read(
            sheaf + self._linux.types.offset("slab_sheaf", "objects"), 8 * min(size, MAX_SHEAF)
        )
        for place in range(0, len(data), 8):
            lists.free.setdefault(int.from_bytes(data[place : place + 8], "little"), (proof, cpu))

    def _nodes(self, cache: SlabCache, lists: _Lists) -> Iterator[tuple[int, int]]:
        """Addresses of the kmem_cache_node and of the barn, 0 without, of each memory node."""
        types, memory = self._linux.types, self._linux.memory
        count = min(self._node_count, MAX_NODES)
        is_split = types.has("kmem_cache", "per_node")
        # Since 7.1 (5ba6bc27b1f9) pointers to both, before to the node, which has the barn's.
        path, step = ("per_node", types.size("kmem_cache_per_node_ptrs")) if is_split else ("node", 8)
        start = cache.address + types.offset("kmem_cache", path)
        for number in range(min(count, MAX_NODES)):
            try:
                if is_split:
                    place = start + number * step
                    node = self._linux.member("kmem_cache_per_node_ptrs", "node", place)
                    barn = self._linux.member("kmem_cache_per_node_ptrs", "barn", place)
                else:
                    node = read_u64(memory, start + number * step)
                    has_barn = node and types.has("kmem_cache_node", "barn")
                    barn = self._linux.member("kmem_cache_node", "barn", node) if has_barn else 0
            except OrcdbgError as error:
                lists.problems.append(f"node {number}: {error}")
                lists.is_whole = False
                continue
            if node:
                yield node, barn

    @functools.cached_property
    def _node_count(self) -> int:
        address = self._linux.find_address("nr_node_ids")
        if address is None:
            return 1
        return min(int.from_bytes(self._linux.memory.read(address, 4), "little"), MAX_NODES)

    def _read_node(self, node: int, lists: _Lists, budget: Budget) -> None:
        head = node + self._linux.types.offset("kmem_cache_node", "partial")
        for address in self._linux.walk_list(head, self._struct, "slab_list", budget):
            lists.slabs.setdefault(address, (SlabPlace.NODE_PARTIAL, None))

    def _read_barn(self, cache: SlabCache, barn: int, lists: _Lists, budget: Budget) -> None:
        if not barn:
            return
        head = barn + self._linux.types.offset("node_barn", "sheaves_full")
        for sheaf in self._linux.walk_list(head, "slab_sheaf", "barn_list", budget):
            self._read_sheaf(sheaf, Proof.NODE_SHEAF, None, lists, budget)

    # Objects

    def object_at(self, address: int, page: PageFrame) -> SlabObject | None:
        """The object that an address of a slab's memory is in, None where the page is no slab's.

        Args:
            address: in the direct map.
            page: the page that it is in.

        Raises:
            MemoryFault: cache or slab cannot be read.
            Corrupt: they contradict themselves.
        """
        slab = self.slab_of(page)
        if slab is None:
            return None
        cache = self.cache(slab.cache)
        lists = self.lists_of(cache)
        place, cpu = self._place(slab, lists)
        number = (address - slab.start) // cache.size
        if number >= slab.objects:
            return SlabObject(
                cache, slab, place, cpu, None, slab.start + slab.objects * cache.size,
                address - slab.start - slab.objects * cache.size,
                ObjectPart.UNUSED, ObjectState.UNKNOWN, Proof.NO_OBJECT, None,
            )  # fmt: skip
        start = slab.start + number * cache.size + cache.red_left_pad
        state, proof, proof_cpu, problems = self.state_of(start, slab, lists)
        return SlabObject(
            cache, slab, place, cpu, number, start, address - start,
            _part(address - start, cache), state, proof, proof_cpu, problems,
        )  # fmt: skip

    @staticmethod
    def _place(slab: Slab, lists: _Lists) -> tuple[SlabPlace, int | None]:
        if slab.page in lists.slabs:
            return lists.slabs[slab.page]
        return (SlabPlace.FULL if slab.in_use == slab.objects else SlabPlace.UNLISTED), None

    def place_of(self, slab: Slab) -> tuple[SlabPlace, int | None]:
        """On which list a slab is, and whose."""
        return self._place(slab, self.lists_of(self.cache(slab.cache)))

    def state_of(
        self, start: int, slab: Slab, lists: _Lists, own: FreeList | None = None
    ) -> tuple[ObjectState, Proof, int | None, tuple[str, ...]]:
        """Whether an object is allocated, by what, whose list that is, and what is broken of the lists.

        Args:
            start: the object's address.
            slab: its slab.
            lists: what CPUs and nodes keep of its cache.
            own: the slab's own list, where the caller has read it.
        """
        if start in lists.free:
            proof, cpu = lists.free[start]
            return ObjectState.FREE, proof, cpu, ()
        chain = self.free_list(slab, slab.free_list) if own is None else own
        if start in chain.objects:
            return ObjectState.FREE, Proof.SLAB_LIST, None, ()
        broken = [f"the free list of the slab: {chain.broken}"] if chain.broken is not None else []
        if slab.page in lists.broken_slabs:
            broken.append(lists.broken_slabs[slab.page])
        if not broken and len(chain.objects) != slab.objects - slab.in_use:
            counted = slab.objects - slab.in_use
            broken.append(f"the slab's free list has {len(chain.objects)} objects, its counter says {counted}")
        if not lists.is_whole:
            broken += lists.problems
        if broken:
            return ObjectState.UNKNOWN, Proof.LIST_BROKEN, None, tuple(broken)
        return ObjectState.ALLOCATED, Proof.ON_NO_LIST, None, ()

    def objects_of(self, slab: Slab) -> Iterator[tuple[int, ObjectState, Proof, int | None]]:
        """All objects of a slab, with their states."""
        lists = self.lists_of(self.cache(slab.cache))
        own = self.free_list(slab, slab.free_list)
        for start in self.object_addresses(slab):
            state, proof, cpu, _ = self.state_of(start, slab, lists, own)
            yield start, state, proof, cpu

    # How full it is

    def usage(self, cache: SlabCache) -> CacheUsage:
        """How many slabs and objects a cache has, and how many of them are free.

        Mirrors get_slabinfo() of mm/slub.c, with what CPUs keep besides, which /proc/slabinfo takes for allocated.
        """
        lists = self.lists_of(cache)
        problems = list(lists.problems)
        slabs = objects = 0
        is_counted = self._linux.types.has("kmem_cache_node", "nr_slabs")
        for node, _ in self._nodes(cache, _Lists()):
            if is_counted:
                try:
                    slabs += self._linux.member("kmem_cache_node", "nr_slabs.counter", node)
                    objects += self._linux.member("kmem_cache_node", "total_objects.counter", node)
                except OrcdbgError as error:
                    problems.append(str(error))
        free = len(lists.free)
        partial = 0
        for address, (place, _) in lists.slabs.items():
            partial += place is SlabPlace.NODE_PARTIAL
            try:
                slab = self._read_slab(address)
                free += max(slab.objects - slab.in_use, 0)
            except OrcdbgError as error:
                if len(problems) < 10:
                    problems.append(str(error))
        return CacheUsage(
            cache, slabs if is_counted else None, objects if is_counted else None, free, partial, tuple(problems)
        )


def _part(offset: int, cache: SlabCache) -> ObjectPart:
    if offset < 0:
        return ObjectPart.LEFT_RED_ZONE
    return ObjectPart.OBJECT if offset < cache.object_size else ObjectPart.BEHIND
