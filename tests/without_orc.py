"""A session over a real kernel whose ORC tables are taken out: of the image, its symbols, and memory, modules' too."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from orcdbg.base.errors import OrcdbgError
from orcdbg.base.reading import AddressSpace, ByteSource
from orcdbg.base.sizes import PAGE
from orcdbg.formats.elf import SHT_NOBITS
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.modules import module_orc, orc_budget
from orcdbg.target.session import Session
from tests.build.memory import ChangedMemory

_SECTIONS = (".orc_header", ".orc_unwind", ".orc_unwind_ip", ".orc_lookup")
_NAMES = (b"__start_orc_", b"__stop_orc_", b"orc_lookup", b"lookup_num_blocks", b"cur_orc_", b".orc_")


class _Cut:
    """A vmlinux in which nothing is called ORC, and the tables are zeros.

    Args:
        source: the vmlinux.
        zeros: [start, end) in the file.
        names: where names are: [start, end) in the file.
    """

    def __init__(self, source: ByteSource, zeros: Sequence[tuple[int, int]], names: Sequence[tuple[int, int]]) -> None:
        self.name = source.name
        self.size = source.size
        self._source = source
        self._zeros = zeros
        self._names = [(start, _without_names(source.read_at(start, end - start))) for start, end in names]

    def read_at(self, offset: int, size: int) -> bytes:
        """The file's bytes, but for what was cut out."""
        data = bytearray(self._source.read_at(offset, size))
        for start, end in self._zeros:
            _lay(data, offset, start, bytes(end - start))
        for start, names in self._names:
            _lay(data, offset, start, names)
        return bytes(data)


def _without_names(data: bytes) -> bytes:
    return re.sub(b"|".join(map(re.escape, _NAMES)), lambda found: found[0].replace(b"o", b"0"), data)


def _lay(data: bytearray, offset: int, start: int, over: bytes) -> None:
    """Lays bytes that begin at `start` over those that begin at `offset`."""
    first, last = max(start, offset), min(start + len(over), offset + len(data))
    if first < last:
        data[first - offset : last - offset] = over[first - start : last - start]


class _ZeroedMemory(ChangedMemory):
    """Physical memory with pieces of pages that are zeros.

    Args:
        memory: as the snapshot has it.
        pieces: [start, end), none across a page's end.
    """

    def __init__(self, memory: AddressSpace, pieces: Sequence[tuple[int, int]]) -> None:
        self._memory = memory
        self._pieces = sorted(pieces)
        self._ends = [end for _, end in self._pieces]

    def read(self, address: int, size: int) -> bytes:
        """As the memory behind it, but for what was cut out."""
        data = self._memory.read(address, size)
        index = bisect.bisect_right(self._ends, address)
        if index == len(self._pieces) or self._pieces[index][0] >= address + size:
            return data
        changed = bytearray(data)
        while index < len(self._pieces) and self._pieces[index][0] < address + size:
            start, end = self._pieces[index]
            _lay(changed, address, start, bytes(end - start))
            index += 1
        return bytes(changed)


def _tables_in_memory(session: Session) -> Iterator[tuple[int, int]]:
    """[start, end) of the tables, at run-time addresses."""
    for name in _SECTIONS:
        section = session.image.find_section(name)
        if section is not None:
            yield section.address + session.slide, section.address + session.slide + section.size
    for module in session.names.modules:
        try:
            ips, ips_at, rows, rows_at = module_orc(session.linux, module, orc_budget())
        except OrcdbgError:
            continue  # it has none
        yield ips_at, ips_at + len(ips)
        yield rows_at, rows_at + len(rows)


def _physical(session: Session, ranges: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, end in ranges:
        address = start
        while address < end:
            last = min(end, (address | PAGE - 1) + 1)
            try:
                place = session.memory.translate(address)
            except OrcdbgError:
                pass
            else:
                yield place, place + last - address
            address = last


def without_orc(session: Session) -> Session:
    """The same stopped kernel as one that was built without ORC."""
    elf = session.image.elf
    tables = [elf.by_name[name] for name in _SECTIONS if name in elf.by_name]
    zeros = [(one.offset, one.offset + one.size) for one in tables if one.type != SHT_NOBITS]
    strings = [elf.by_name[name] for name in (".shstrtab", ".strtab")]
    image = Image(_Cut(elf.source, zeros, [(one.offset, one.offset + one.size) for one in strings]))
    memory = _ZeroedMemory(session.snapshot.physical, [*_physical(session, _tables_in_memory(session))])
    return Session(image, replace(session.snapshot, physical=memory))
