"""What does the build put into a module, once it is linked to where the kernel loaded it?

Mirrors apply_relocate_add() in arch/x86/kernel/module.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats.elf import ET_REL, SHF_ALLOC, SHT_NOBITS, ElfFile, Section

_SHT_RELA, _SHT_SYMTAB = 4, 2
_RELA = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
# Relocation types: bytes written, and whether the place's own address is taken off.
_KINDS = {1: (8, False), 2: (4, True), 4: (4, True), 10: (4, False), 11: (4, False), 24: (8, True)}
_SHN_UNDEF, _SHN_LORESERVE = 0, 0xFF00
MAX_SYMBOLS, MAX_LOADED, MAX_NAME = 64 << 20, 256 << 20, 4096  # bytes

Resolve = Callable[[str], int | None]
U64Array = npt.NDArray[np.uint64]


class ModuleFile:
    """A `.ko` file.

    Raises:
        UnsupportedFormat: from the constructor, when it is not one.
    """

    def __init__(self, source: ByteSource) -> None:
        self.path = source.name
        self.elf = ElfFile(source)
        if self.elf.type != ET_REL:
            raise UnsupportedFormat(source.name, "not a module: the file is linked already")
        table = next((s for s in self.elf.sections if s.type == _SHT_SYMTAB), None)
        if table is None or table.link >= len(self.elf.sections):
            raise UnsupportedFormat(source.name, "a module without symbols")
        if max(table.size, self.elf.sections[table.link].size) > MAX_SYMBOLS:
            raise UnsupportedFormat(source.name, f"a symbol table of {table.size} bytes")
        data = self.elf.data(table)
        self._symbols = np.frombuffer(data[: len(data) // _SYMBOL.itemsize * _SYMBOL.itemsize], dtype=_SYMBOL)
        self._strings = self.elf.data(self.elf.sections[table.link])

    def _name(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset, offset + MAX_NAME)
        return self._strings[offset : max(end, offset)].decode("ascii", "replace")

    def offset_of(self, name: str, section: int) -> int | None:
        """Where in a section a symbol is; None where the file has none of that name there."""
        rows = np.flatnonzero(self._symbols["section"] == section).tolist()
        names = ((row, self._name(int(self._symbols["name"][row]))) for row in rows)
        return next((int(self._symbols["value"][row]) for row, found in names if found == name), None)

    def linked(self, addresses: Mapping[str, int], resolve: Resolve) -> dict[str, tuple[int, bytes]]:
        """Address and bytes of each allocated section, linked.

        Args:
            addresses: where each section was loaded; one that is not named gets an address where nothing is.
            resolve: the address of a symbol that the module does not define, None where nobody does.
        """
        sections = self.elf.sections
        places = [addresses.get(s.name, (number + 1) << 32) for number, s in enumerate(sections)]
        values = self._values(np.array(places, dtype=np.uint64), resolve)
        found = {}
        relocations: dict[int, list[Section]] = {}
        for rela in sections:
            if rela.type == _SHT_RELA:
                relocations.setdefault(rela.info, []).append(rela)
        left = MAX_LOADED  # sections may lie in each other
        for number, section in enumerate(sections):
            if section.flags & SHF_ALLOC and section.name not in found:
                left -= sum(one.size for one in (section, *relocations.get(number, ())) if one.type != SHT_NOBITS)
                if left < 0:
                    raise UnsupportedFormat(self.path, f"a module of more than {MAX_LOADED >> 20} MiB")
                data = bytearray(self.elf.data(section) if section.type != SHT_NOBITS else b"")
                for rela in relocations.get(number, ()):
                    self._relocate(data, places[number], rela, values)
                found[section.name] = (places[number], bytes(data))
        return found

    def _values(self, places: U64Array, resolve: Resolve) -> U64Array:
        """The address of each symbol."""
        numbers, values = self._symbols["section"], self._symbols["value"].copy()
        inside = (numbers > _SHN_UNDEF) & (numbers < min(len(places), _SHN_LORESERVE))
        values[inside] += places[numbers[inside]]
        for row in np.flatnonzero(numbers == _SHN_UNDEF).tolist():
            values[row] = resolve(self._name(int(self._symbols["name"][row]))) or 0
        return values

    def _relocate(self, data: bytearray, address: int, rela: Section, values: U64Array) -> None:
        raw = self.elf.data(rela)
        rows = np.frombuffer(raw[: len(raw) // _RELA.itemsize * _RELA.itemsize], dtype=_RELA)
        symbols = rows["info"] >> np.uint64(32)
        if len(rows) and int(symbols.max()) >= len(values):
            raise UnsupportedFormat(self.path, f"{rela.name} names symbol {int(symbols.max())} of {len(values)}")
        kinds = rows["info"] & np.uint64(0xFFFF_FFFF)
        targets = values[symbols] + rows["addend"].view(np.uint64)
        array = np.frombuffer(data, dtype=np.uint8)
        for kind, (width, relative) in _KINDS.items():
            if width > len(data):
                continue
            mine = (kinds == kind) & (rows["offset"] <= np.uint64(len(data) - width))
            offsets = rows["offset"][mine]
            amounts = targets[mine] - (offsets + np.uint64(address) if relative else np.uint64(0))
            pieces = np.ascontiguousarray(amounts).view(np.uint8).reshape(-1, 8)[:, :width]
            array[offsets.view(np.int64)[:, None] + np.arange(width)] = pieces
