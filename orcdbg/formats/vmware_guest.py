"""What does VMware's debug.guest say of a guest that it stopped in a panic: of holes in its memory, and of its CPUs?

The file has no magic number. Of the format no description was published; this follows crash's reader (vmware_guestdump.c).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats.core_notes import PR_REG_NAMES

MAX_HOLES = 2
# vSphere 8 gives a guest 768 at most.
MAX_CPUS = 8192


class _Layout(NamedTuple):
    """Where things are in the header of a version."""

    memory: int  # what is said of memory
    is_old: bool  # by numbers of 32 bits
    cpus: int  # the first CPU; of the old form, what is behind its holes
    gap: int  # between the halves of a CPU's state


_HEADER = struct.Struct("<II")  # version, CPUs
_MEMORY = struct.Struct("<QQII4Q")  # last address, pages, reserved, holes, and of two holes page frame and pages
_OLD_MEMORY = struct.Struct("<QIII4I")
_ARCHITECTURE = struct.Struct("<I")
_X86 = 1
_MEMORY_OF = {3: 14, 4: 14, 5: 14, 6: 15, 7: 8}
# ESXi 6.7 and before, 6.8, 7.0, 8.0, 8.0u2, 9.0.
_LAYOUTS = {
    1: _Layout(_HEADER.size + 13, True, _HEADER.size + 13 + _OLD_MEMORY.size + 4, 45),
    **{
        version: _Layout(
            _HEADER.size + before,
            False,
            _HEADER.size + before + _MEMORY.size + (11 if version == 7 else 0),
            45 if version < 4 else 42,
        )
        for version, before in _MEMORY_OF.items()
    },
}
HEAD_SIZE = max(layout.cpus for layout in _LAYOUTS.values()) + 8 * MAX_HOLES
_CONTROL = struct.Struct("<IQQQ80xQ")  # cr0, cr2, cr3, cr4, what nobody knows, the base of the IDT
_GENERAL = struct.Struct("<27Q17x")  # as struct user_regs_struct, and what nobody knows


class GuestCpu(NamedTuple):
    """A CPU: its general registers by name, segments and their bases among them; control registers; the IDT's base."""

    registers: dict[str, int]
    cr3: int
    cr4: int
    idt: int


@dataclass(frozen=True, slots=True)
class GuestHeader:
    """What the header says.

    Attributes:
        cpus: how many there are.
        pages: of memory.
        holes: first page frame and pages of each hole in it, by address.
        first_cpu: where in the file the first CPU is.
        gap: bytes between the halves of a CPU's state.
    """

    cpus: int
    pages: int
    holes: tuple[tuple[int, int], ...]
    first_cpu: int
    gap: int

    @property
    def cpu_size(self) -> int:
        """Bytes of the file for a CPU."""
        return _CONTROL.size + self.gap + _GENERAL.size + PAGE

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.first_cpu + self.cpus * self.cpu_size


def parse_header(head: bytes) -> GuestHeader | None:
    """The header in a file's first `HEAD_SIZE` bytes; None of any other file."""
    if len(head) < HEAD_SIZE:
        return None
    version, cpus = _HEADER.unpack_from(head)
    layout = _LAYOUTS.get(version)
    if layout is None or not 0 < cpus <= MAX_CPUS:
        return None

    form = _OLD_MEMORY if layout.is_old else _MEMORY
    last, pages, _, count, *numbers = form.unpack_from(head, layout.memory)
    if count > MAX_HOLES:
        return None
    if version == 7 and _ARCHITECTURE.unpack_from(head, layout.memory + form.size) != (_X86,):
        return None

    holes = tuple((numbers[2 * number], numbers[2 * number + 1]) for number in range(count))
    if not _agree(last, pages, holes):
        return None
    return GuestHeader(cpus, pages, holes, layout.cpus + (8 * count if layout.is_old else 0), layout.gap)


def _agree(last: int, pages: int, holes: Sequence[tuple[int, int]]) -> bool:
    """What tells such a file: memory and holes are as much as the last address says, and lie behind each other."""
    is_as_large = pages > 0 and last + 1 == (pages + sum(size for _, size in holes)) * PAGE
    return is_as_large and all(a[0] + a[1] <= b[0] for a, b in itertools.pairwise(holes))


def read_cpu(source: ByteSource, header: GuestHeader, cpu: int) -> GuestCpu:
    """A CPU's registers.

    Raises:
        UnsupportedFormat: they are beyond the end of the file.
    """
    if source.size < header.size:
        raise UnsupportedFormat(
            source.name, f"truncated: {header.size} bytes for {header.cpus} CPUs, the file has {source.size}"
        )
    place = header.first_cpu + cpu * header.cpu_size
    _, _, cr3, cr4, idt = _CONTROL.unpack(source.read_at(place, _CONTROL.size))
    values = _GENERAL.unpack(source.read_at(place + _CONTROL.size + header.gap, _GENERAL.size))
    return GuestCpu(dict(zip(PR_REG_NAMES, values, strict=True)), cr3, cr4, idt)
