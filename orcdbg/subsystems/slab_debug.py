"""What did slub_debug keep of a slab object: who allocated and freed it, and are its red zones and poison whole?

Mirrors mm/slub.c: get_track(), check_object(), and include/linux/poison.h. All of it is there only for caches with the
debugging flags set, by `slub_debug=` (`slab_debug=` since 6.9) on the command line.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import signed
from orcdbg.kernel.linux import Linux
from orcdbg.subsystems.slab import (
    POISON_END,
    POISON_FREE,
    RED_ACTIVE,
    RED_INACTIVE,
    ObjectState,
    SlabCache,
    SlabObject,
)
from orcdbg.subsystems.stack_depot import stack_of


@dataclass(frozen=True, slots=True)
class Track:
    """Who allocated or freed an object last.

    Attributes:
        caller: the address in the code that called the allocator.
        stack: return addresses, the innermost first; empty where none were kept.
        cpu: where.
        pid: of the task.
        jiffies: when, the lower 32 bits or all of them.
        problem: why the stack cannot be told; None where it can.
    """

    caller: int
    stack: tuple[int, ...]
    cpu: int
    pid: int
    jiffies: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of an object's place that are not as slub_debug left them.

    Attributes:
        what: `left red zone`, `right red zone`, `poison`.
        address: of the first wrong byte.
        expected: what the byte should be.
        found: the wrong bytes from there on, 16 at most.
    """

    what: str
    address: int
    expected: int
    found: bytes


@dataclass(frozen=True, slots=True)
class SlabDebug:
    """What slub_debug kept of an object; `allocation` and `free` are None where it kept none."""

    allocation: Track | None
    free: Track | None
    damage: tuple[Damage, ...]


def slab_debug(linux: Linux, found: SlabObject) -> SlabDebug | None:
    """What slub_debug kept of an object; None for a cache without it.

    Raises:
        MemoryFault: the object cannot be read.
    """
    cache = found.cache
    if not cache.debug & {"RED_ZONE", "POISON", "STORE_USER"} or found.number is None:
        return None
    data = linux.memory.read(found.start - cache.red_left_pad, min(cache.size, 4 << 20))
    damage = tuple(_damage(found, data))
    if "STORE_USER" not in cache.debug:
        return SlabDebug(None, None, damage)
    return SlabDebug(_track(linux, found, 0), _track(linux, found, 1), damage)


def _info_end(cache: SlabCache) -> int:
    """get_info_end(): where what debugging keeps begins, behind a free pointer that is outside of the object."""
    return cache.in_use + 8 if cache.offset >= cache.in_use else cache.in_use


def _track(linux: Linux, found: SlabObject, number: int) -> Track | None:
    size = linux.types.size("track")
    address = found.start + _info_end(found.cache) + number * size
    if _info_end(found.cache) + 2 * size > found.cache.size:
        return None
    member = linux.member
    caller = member("track", "addr", address)
    if not caller:
        return None
    stack: list[int] = []
    problem = None
    try:
        if linux.types.has("track", "handle"):
            # Since 6.0 (5cf909c553e9) in the stack depot, before in the track itself.
            stack = stack_of(linux, member("track", "handle", address))
        elif linux.types.has("track", "addrs"):
            data = linux.memory.read(address + linux.types.offset("track", "addrs"), 8 * 16)
            stack = [word for word in struct.unpack("<16Q", data) if word]
    except OrcdbgError as error:
        problem = str(error)
    cpu, pid = signed(member("track", "cpu", address), 32), signed(member("track", "pid", address), 32)
    return Track(caller, tuple(stack), cpu, pid, member("track", "when", address), problem)


def _damage(found: SlabObject, data: bytes) -> list[Damage]:
    """Where red zones and poison are not as they were made.

    Args:
        found: the object.
        data: its place in the slab, from its left red zone on.
    """
    cache = found.cache
    if found.state is ObjectState.UNKNOWN:
        return []
    is_free = found.state is ObjectState.FREE
    base = found.start - cache.red_left_pad
    pad = cache.red_left_pad
    wrong = []
    if "RED_ZONE" in cache.debug:
        value = RED_INACTIVE if is_free else RED_ACTIVE
        wrong.append(_first_wrong("left red zone", data, 0, pad, value, base))
        wrong.append(_first_wrong("right red zone", data, pad + cache.object_size, pad + cache.in_use, value, base))
    # The free pointer is outside of the object where poison is; objects that stay of use when they are free have none.
    is_poisoned = "POISON" in cache.debug and not cache.constructor and "TYPESAFE_BY_RCU" not in cache.debug
    if is_free and is_poisoned and cache.offset >= cache.object_size:
        end = pad + cache.object_size - 1
        wrong.append(_first_wrong("poison", data, pad, end, POISON_FREE, base))
        wrong.append(_first_wrong("poison", data, end, end + 1, POISON_END, base))
    return [each for each in wrong if each is not None]


def _first_wrong(what: str, data: bytes, start: int, end: int, value: int, base: int) -> Damage | None:
    zone = data[start:end]
    rest = zone.lstrip(bytes((value,)))
    if not rest:
        return None
    place = start + len(zone) - len(rest)
    return Damage(what, base + place, value, rest.rstrip(bytes((value,)))[:16])
