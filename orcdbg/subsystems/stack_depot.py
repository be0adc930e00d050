"""Which return addresses does a handle of the stack depot stand for?

Mirrors lib/stackdepot.c.
"""

from __future__ import annotations

import struct

from orcdbg.base.errors import Corrupt, NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.kernel.linux import Linux

# CONFIG_STACKDEPOT_MAX_FRAMES is 64.
MAX_ENTRIES = 256
_ALIGNMENT = 4  # DEPOT_STACK_ALIGN, since 4.6 (cd11016e5f52)
_MAX_POOLS = 1 << 21


def stack_of(linux: Linux, handle: int) -> list[int]:
    """The return addresses of a handle, the innermost first; empty for the handle 0.

    Args:
        linux: the kernel.
        handle: a `depot_stack_handle_t`.

    Raises:
        NotFound: this kernel has no stack depot, or not that handle.
        Corrupt: the record at the handle cannot be one.
        MemoryFault: it cannot be read.
    """
    if not handle:
        return []
    index, offset = _place(linux, handle)
    # Renamed in 6.3 (961c949b012f).
    pools = linux.find_address("stack_pools") or linux.address("stack_slabs")
    if linux.types.has("handle_parts", "pool_index_plus_1") and _is_pointer(linux, pools):
        pools = read_u64(linux.memory, pools)
    pool = read_u64(linux.memory, pools + 8 * index & U64)
    if not pool:
        raise NotFound("stack in the stack depot", f"{handle:#x}")
    record = pool + (offset << _ALIGNMENT) & U64
    size = linux.member("stack_record", "size", record)
    if size > MAX_ENTRIES:
        raise Corrupt(f"the stack record at {record:#x} has {size} entries")
    count = min(size, MAX_ENTRIES)
    data = linux.memory.read(record + linux.types.offset("stack_record", "entries"), 8 * min(size, MAX_ENTRIES))
    return list(struct.unpack(f"<{count}Q", data))


def _is_pointer(linux: Linux, pools: int) -> bool:
    """Since 6.13 or so `stack_pools` may be a pointer to the array in place of the array: its symbol tells by its size."""
    symbol = linux.symbols.find("stack_pools")
    return symbol is not None and symbol.size == 8 and bool(pools)


def _place(linux: Linux, handle: int) -> tuple[int, int]:
    """Number of the pool, and offset in it, of a handle, by `union handle_parts`."""
    types = linux.types
    for path in ("pool_index_plus_1", "pool_index", "slabindex"):
        member = types.find("handle_parts", path)
        if member is not None:
            index = handle >> member.bit_offset & (1 << member.bit_size) - 1
            # Since 6.9 (3ee34eabac2a) counted from 1, so that no handle is 0.
            index -= path == "pool_index_plus_1"
            break
    else:
        raise NotFound("member", "handle_parts.pool_index")
    place = types.find("handle_parts", "offset")
    if place is None or not 0 <= index < _MAX_POOLS:
        raise NotFound("stack in the stack depot", f"{handle:#x}")
    return index, handle >> place.bit_offset & (1 << place.bit_size) - 1
