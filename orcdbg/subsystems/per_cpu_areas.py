"""Which CPU's copy of per-CPU memory is an address in, and of which variable?

Mirrors mm/percpu.c. The first chunk holds the variables of the image, then those of modules, then what alloc_percpu() gives;
later chunks hold more of that. A per-CPU pointer plus a CPU's offset is the address on that CPU.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError
from orcdbg.base.reading import read_u64
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.symbols.table import Symbol

MAX_CHUNKS = 1 << 16
_MAX_SLOTS = 64
# PCPU_MIN_UNIT_SIZE is 32 KiB; lockdep kernels have some megabytes.
_MAX_UNIT = 1 << 30


@dataclass(frozen=True, slots=True)
class PerCpuPlace:
    """An address in per-CPU memory.

    Attributes:
        cpu: whose copy.
        pointer: the per-CPU pointer that with that CPU's offset gives the address.
        variable: the symbol that it is in, of the image or of a module; None for allocated memory.
        offset: bytes behind that symbol, or else behind the pointer: 0.
        is_static: whether it is in the image's per-CPU variables.
        module: the module whose variables it is in.
    """

    cpu: int
    pointer: int
    variable: str | None
    offset: int
    is_static: bool
    module: str | None = None


class PerCpuAreas:
    """The per-CPU memory of one kernel.

    Args:
        linux: the kernel.
        names: of the modules' variables.
    """

    def __init__(self, linux: Linux, names: Names) -> None:
        self._linux = linux
        self._names = names

    @functools.cached_property
    def offsets(self) -> list[int]:
        """By CPU, what is added to a per-CPU pointer; of all CPUs that are possible."""
        linux = self._linux
        start = linux.address("__per_cpu_offset")
        return [read_u64(linux.memory, start + 8 * cpu) for cpu in range(min(linux.cpu_limit(), 8192))]

    @functools.cached_property
    def static_range(self) -> tuple[int, int]:
        """[start, end) of the image's per-CPU variables as pointers; zero-based before 6.15 (9d7de2aa8b41)."""
        return self._linux.address("__per_cpu_start"), self._linux.address("__per_cpu_end")

    def _word(self, name: str) -> int:
        return read_u64(self._linux.memory, self._linux.address(name))

    @functools.cached_property
    def _unit(self) -> tuple[int, list[int]]:
        """Bytes that a chunk has for each CPU, and where in the chunk each CPU's begin."""
        linux = self._linux
        size = int.from_bytes(linux.memory.read(linux.address("pcpu_unit_size"), 4), "little")
        if not 0 < size <= _MAX_UNIT:
            raise NotFound("per-CPU unit size", str(size))
        start = self._word("pcpu_unit_offsets")
        return size, [read_u64(linux.memory, start + 8 * cpu) for cpu in range(len(self.offsets))]

    @functools.cached_property
    def _chunks(self) -> list[int]:
        """Base addresses of all chunks, the first one's first."""
        found = [self._word("pcpu_base_addr")]
        budget = Budget(MAX_CHUNKS)
        try:
            found += self._further_chunks(budget)
        except OrcdbgError:
            pass  # the first chunk alone has all variables of the image
        return list(dict.fromkeys(found))

    def _further_chunks(self, budget: Budget) -> Iterator[int]:
        linux = self._linux
        lists = linux.find_address("pcpu_chunk_lists") or linux.address("pcpu_slot")
        first = read_u64(linux.memory, lists)
        count = int.from_bytes(linux.memory.read(linux.address("pcpu_nr_slots"), 4), "little")
        for number in range(min(count, _MAX_SLOTS)):
            for chunk in linux.walk_list(first + 16 * number & U64, "pcpu_chunk", "list", budget):
                yield linux.member("pcpu_chunk", "base_addr", chunk)

    def at(self, address: int) -> PerCpuPlace | None:
        """The per-CPU memory that an address is in; None where it is in none.

        Raises:
            OrcdbgError: this kernel's per-CPU memory cannot be read, or has none.
        """
        return self._in_variables(address) or self._in_chunks(address)

    def _in_variables(self, address: int) -> PerCpuPlace | None:
        start, end = self.static_range
        for cpu, offset in enumerate(self.offsets):
            pointer = address - offset & U64
            if start <= pointer < end:
                name, distance = self._variable(pointer)
                return PerCpuPlace(cpu, pointer, name, distance, True)
        return None

    @functools.cached_property
    def _variables(self) -> tuple[list[int], list[Symbol]]:
        """The image's per-CPU variables by their pointers: those that have a size."""
        start, end = self.static_range
        slide = self._linux.slide if start >> 63 else 0
        found = [symbol for symbol in self._linux.symbols.between(start - slide, end - slide) if symbol.size]
        return [symbol.address + slide for symbol in found], found

    def _variable(self, pointer: int) -> tuple[str | None, int]:
        starts, symbols = self._variables
        place = bisect.bisect_right(starts, pointer) - 1
        if place < 0 or pointer - starts[place] >= symbols[place].size:
            return None, 0
        return symbols[place].name, pointer - starts[place]

    def _in_chunks(self, address: int) -> PerCpuPlace | None:
        size, units = self._unit
        for base in self._chunks:
            for cpu, unit in enumerate(units):
                if base + unit <= address < base + unit + size:
                    return self._of_module(cpu, address - self.offsets[cpu] & U64)
        return None

    def _of_module(self, cpu: int, pointer: int) -> PerCpuPlace:
        """A place that is none of the image's variables': in a module's, or in allocated memory."""
        module = self._names.module_of_per_cpu(pointer)
        if module is None:
            return PerCpuPlace(cpu, pointer, None, 0, False)
        found = self._names.per_cpu_of(module, pointer)
        if found is None:
            return PerCpuPlace(cpu, pointer, None, 0, False, module.name)
        return PerCpuPlace(cpu, pointer, found.symbol, pointer - found.start, False, module.name)
