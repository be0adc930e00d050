"""Where is this variable of the kernel, whose type the reader knows from the kernel's headers?

BTF describes per-CPU variables alone, and 5.10's not even those, so whoever reads a part of the kernel names the type.
"""

from __future__ import annotations

from orcdbg.base.errors import NotFound
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.kernel.linux import Linux
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

# Pages that the kernel manages; 5.0 made an atomic number of it, with another name (ca79b0c211af).
_TOTAL_PAGES = ("_totalram_pages", "totalram_pages")


def total_pages(linux: Linux) -> int:
    """How many pages the kernel manages."""
    name = next((name for name in _TOTAL_PAGES if linux.find_address(name) is not None), _TOTAL_PAGES[0])
    return read_u64(linux.memory, linux.address(name))


def variable(program: Program, name: str, type_: str) -> Object:
    """A variable of the image, with the type that it is declared with; NotFound where this kernel has none of that name."""
    return program.object(type_, program.linux.address(name))


def find_variable(program: Program, name: str, type_: str) -> Object | None:
    """The same, None where this kernel has none of that name."""
    address = program.linux.find_address(name)
    return None if address is None else program.object(type_, address)


def per_cpu_variable(program: Program, name: str, type_: str, cpu: int) -> Object:
    """A CPU's instance of a per-CPU variable; NotFound where this kernel has none of that name."""
    address = program.linux.per_cpu(name, cpu)
    if address is None:
        raise NotFound("per-CPU variable", name)
    return program.object(type_, address)


def of_cpu(pointer: Object, cpu: int) -> Object:
    """What a per-CPU pointer, as alloc_percpu() gives it, points to on a CPU."""
    program = pointer.program_
    address = int(pointer) + program.linux.per_cpu_offset(cpu) & U64
    return program.value(pointer.type_, address).deref_()


def bits_of(words: Object, limit: int) -> list[int]:
    """Numbers of the bits that are set in a bitmap, `struct cpumask` or words of one, below `limit`.

    Args:
        words: the bitmap in memory.
        limit: how many bits it has; bounded by the caller.
    """
    address = words.address_
    if address is None:
        raise NotFound("bitmap", "not in memory")
    data = words.program_.memory.read(address, (limit + 63) // 64 * 8)
    value = int.from_bytes(data, "little")
    return [bit for bit in range(limit) if value >> bit & 1]


def cpu_mask(mask: Object) -> list[int]:
    """The CPUs of a `cpumask_var_t` or `struct cpumask`."""
    plain = mask.deref_() if mask.size_ == 8 and not mask.has_member_("bits") else mask
    limit = mask.program_.linux.cpu_limit()
    if mask.has_member_("bits"):
        bits = mask.member_("bits")
        return bits_of(bits, min(limit, 8 * bits.size_))
    return bits_of(plain, limit)
