"""Which bytes of text did the boot loader change because the kernel does not run where it was linked (KASLR)?

The list of places is in the `.rela` sections of a vmlinux linked with --emit-relocs, and at the end of what a bzImage
unpacks to, where the boot itself reads it. Where the file has neither, a four-byte operand is taken for relocated when an
instruction really has one there and its value is an address of the image. Mirrors handle_relocations() in
arch/x86/boot/compressed/misc.c.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import clamped, signed
from orcdbg.base.sizes import U64
from orcdbg.formats.bzimage import BootRelocations
from orcdbg.formats.elf import Section
from orcdbg.image.vmlinux import KERNEL_BASE, Image
from orcdbg.symbols.table import ENTRY, PER_CPU_SECTION, symbol_data
from orcdbg.x86.instructions import decode, wide_operands

_RELA = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_R_64, _R_PC32, _R_PLT32, _R_32, _R_32S = 1, 2, 4, 10, 11
_SHN_ABS = 0xFFF1
MAX_IMAGE = 1 << 30
_LONGEST = 15  # bytes of an instruction
_NOT_PER_CPU = (b"__init_begin", b"__per_cpu_load", b"init_per_cpu_")


class RelocationList(NamedTuple):
    """Relocated fields: link addresses in rising order, bytes of each, and whether the slide is added (1) or taken off (-1)."""

    places: npt.NDArray[np.uint64]
    widths: npt.NDArray[np.int64]
    signs: npt.NDArray[np.int64]


_MOVED_ALREADY = RelocationList(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))


def boot_list(found: BootRelocations, section: Section) -> RelocationList:
    """The fields of a section among those that the boot itself moves."""
    parts = ((found.wide, 8, 1), (found.narrow, 4, 1), (found.inverse, 4, -1))
    columns: tuple[list[npt.NDArray[np.int64]], ...] = ([], [], [])
    for places, width, sign in parts:
        first, last = np.searchsorted(places, (signed(section.address, 64), signed(section.end, 64)))
        mine = places[first:last]
        for column, value in zip(columns, (mine, np.full(len(mine), width), np.full(len(mine), sign)), strict=True):
            column.append(value)
    places, widths, signs = (np.concatenate(column) for column in columns)
    order = np.argsort(places, kind="stable")
    return RelocationList(places[order].view(np.uint64), widths[order], signs[order])


class BuiltText:
    """The image at its run-time addresses, with the boot loader's relocations applied: an AddressSpace."""

    def __init__(self, image: Image, slide: int) -> None:
        self._image = image
        self._slide = slide
        self._lists: dict[str, RelocationList | None] = {}

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a run-time address, as they were before the kernel itself changed any."""
        link = address - self._slide
        data = self._image.read(link, size)
        if self._slide == 0 or not size:
            return data
        section = self._image.section_at(link)
        places = self.relocations(section) if section is not None else None
        if self._image.is_memory:
            return data
        if section is None or places is None:
            return self._by_operand(data, link)
        return self._by_list(data, link, section, places)

    def relocations(self, section: Section) -> RelocationList | None:
        """The relocated fields of a section; None where the image has no list for it."""
        if section.name not in self._lists:
            self._lists[section.name] = self._list_of(section)
        return self._lists[section.name]

    def _list_of(self, section: Section) -> RelocationList | None:
        if self._image.is_memory:
            return _MOVED_ALREADY
        if self._image.boot_relocations is not None:
            return boot_list(self._image.boot_relocations, section)
        if f".rela{section.name}" not in self._image.elf.by_name:
            return None
        places, kinds = self._places(section.name)
        widths = np.where(kinds == _R_64, 8, 4)
        return RelocationList(places, widths, np.where(np.isin(kinds, (_R_64, _R_32, _R_32S)), 1, -1))

    @property
    def per_cpu_size(self) -> int:
        """Bytes of per-CPU data linked at 0; 0 where they are linked like other data (since 6.15)."""
        return self._per_cpu_size

    def _add(self, out: bytearray, at: int, width: int, amount: int) -> None:
        if at >= 0 and at + width <= len(out):
            value = int.from_bytes(out[at : at + width], "little") + amount
            out[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")

    def _by_list(self, data: bytes, link: int, section: Section, found: RelocationList) -> bytes:
        """Relocates by a list; places that straddle an end of `data` are done on a wider read."""
        places = found.places
        first = int(np.searchsorted(places, clamped(link - 7)))
        last = int(np.searchsorted(places, clamped(link + len(data))))
        if first == last:
            return data
        low, high = max(link - 8, section.address), min(link + len(data) + 8, section.end)
        out = bytearray(self._image.read(low, high - low))
        chosen = (column[first:last].tolist() for column in found)
        for place, width, sign in zip(*chosen, strict=True):
            self._add(out, place - low, width, sign * self._slide)
        return bytes(out[link - low : link - low + len(data)])

    def _places(self, section: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Link addresses of relocated fields of a section, sorted, and the relocation type of each."""
        table = self._image.section_data(f".rela{section}")
        rows = np.frombuffer(table[: len(table) // _RELA.itemsize * _RELA.itemsize], dtype=_RELA)
        kinds = rows["info"] & np.uint64(0xFFFF_FFFF)
        numbers = rows["info"] >> np.uint64(32)
        per_cpu, absolute = self._symbol_kinds
        if len(rows) and int(numbers.max()) >= len(per_cpu):
            raise UnsupportedFormat(self._image.path, f".rela{section} names symbol {numbers.max()} of {len(per_cpu)}")
        is_per_cpu, is_absolute = per_cpu[numbers], absolute[numbers]
        direct = np.isin(kinds, (_R_64, _R_32, _R_32S)) & ~is_per_cpu & ~is_absolute
        inverse = np.isin(kinds, (_R_PC32, _R_PLT32)) & is_per_cpu
        keep = np.flatnonzero(direct | inverse)
        order = keep[np.argsort(rows["offset"][keep], kind="stable")]
        return rows["offset"][order], kinds[order]

    @functools.cached_property
    def _symbol_kinds(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """For each symbol: is it zero-based per-CPU, is it absolute."""
        elf = self._image.elf
        table, names = symbol_data(self._image)
        entries = np.frombuffer(table, dtype=ENTRY)
        index = next((i for i, s in enumerate(elf.sections) if s.name == PER_CPU_SECTION and s.address == 0), -1)
        per_cpu = entries["section"] == index
        for number in np.flatnonzero(per_cpu):
            if names.startswith(_NOT_PER_CPU, int(entries["name"][number])):
                per_cpu[number] = False
        return per_cpu, entries["section"] == _SHN_ABS

    def _may_hold_operand(self, data: bytes, link: int) -> bool:
        """False when no four bytes of `data` could be an address to relocate; spares most sites the decoding."""
        words = np.ndarray((max(len(data) - 3, 0),), dtype="<u4", buffer=data, strides=(1,)).astype(np.int64)
        base, low = KERNEL_BASE & 0xFFFF_FFFF, link & 0xFFFF_FFFF
        absolute = (words >= base) & (words < base + MAX_IMAGE)
        reach = words + low - (1 << 32)  # where a RIP-relative operand would point, give or take an instruction
        per_cpu = (reach >= -len(data) - 16) & (reach < self._per_cpu_size)
        return bool((absolute | per_cpu).any())

    def _by_operand(self, data: bytes, link: int) -> bytes:
        """Relocates absolute operands of the instructions in `data`, which must begin at one."""
        if not self._may_hold_operand(data, link):
            return data
        out = bytearray(data)
        for at, sign in self._operands(data, link):
            self._add(out, at, 4, sign * self._slide)
        return bytes(out)

    def _operands(self, data: bytes, link: int) -> Iterator[tuple[int, int]]:
        """Where in `data`, which must begin at an instruction, the boot adds (1) or takes off (-1) the slide."""
        for insn in decode(data, link):
            for operand in wide_operands(insn.raw, insn.address):
                at = insn.address - link + operand.offset
                value = signed(int.from_bytes(data[at : at + 4], "little"), 32)
                if operand.relative:
                    if 0 <= insn.end + value - (1 << 64) < self._per_cpu_size and insn.target is None:
                        yield at, -1
                elif self._image.section_at(value & U64) is not None:
                    yield at, 1

    def fields(self, start: int, end: int, boundary: int) -> list[tuple[int, bytes, bytes]]:
        """The relocated fields that touch [start, end): run-time address, bytes as linked, bytes as moved.

        Args:
            start: run-time address of the first byte.
            end: run-time address after the last.
            boundary: start of an instruction at or before `start`, such as the function's; asked where no list tells.
        """
        if self._slide == 0 or self._image.is_memory:
            return []
        link = start - self._slide
        section = self._image.section_at(link)
        listed = self.relocations(section) if section is not None else None
        if listed is not None:
            first = int(np.searchsorted(listed.places, clamped(link - 7)))
            last = int(np.searchsorted(listed.places, clamped(end - self._slide)))
            columns = (column[first:last].tolist() for column in listed)
            fields = [(place + self._slide, width, sign) for place, width, sign in zip(*columns, strict=True)]
        else:
            size = min(end + _LONGEST, section.end + self._slide if section else end) - boundary
            data = self._image.read(boundary - self._slide, size)
            fields = [(boundary + at, 4, sign) for at, sign in self._operands(data, boundary - self._slide)]
        return [(at, *self._moved(at, width, sign)) for at, width, sign in fields if at < end and at + width > start]

    def _moved(self, address: int, width: int, sign: int) -> tuple[bytes, bytes]:
        linked = self._image.read(address - self._slide, width)
        moved = bytearray(linked)
        self._add(moved, 0, width, sign * self._slide)
        return linked, bytes(moved)

    @functools.cached_property
    def _per_cpu_size(self) -> int:
        """Bytes of per-CPU data linked at 0, which RIP-relative operands reach from text that moves; 0 from 6.15 on."""
        section = self._image.find_section(PER_CPU_SECTION)
        return section.size if section is not None and section.address == 0 else 0
