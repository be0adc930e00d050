"""What does the build put into a module, once it is linked to where the kernel loaded it?

Mirrors apply_relocate_add() in arch/x86/kernel/module.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import ByteSource
from orcdbg.formats.dwarf_sections import Relocate
from orcdbg.formats.elf import ET_REL, SHF_ALLOC, SHT_NOBITS, ElfFile, Section

_SHT_SYMTAB = 2
_SHT_RELA = 4
_SHN_UNDEF = 0
_SHN_LORESERVE = 0xFF00

# Elf64_Rela and Elf64_Sym of include/uapi/linux/elf.h.
_RELA = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)

# By the type of a relocation: how many bytes are written, and whether the place's own address is taken off. They are
# R_X86_64_64, PC32, PLT32, 32, 32S and PC64 (arch/x86/include/asm/elf.h).
_KINDS = {1: (8, False), 2: (4, True), 4: (4, True), 10: (4, False), 11: (4, False), 24: (8, True)}

# In bytes: of a symbol table or its strings; of all sections that are loaded, which in a damaged file may lie in each other
# and be counted many times; of a name.
MAX_SYMBOLS = 64 << 20
MAX_LOADED = 256 << 20
MAX_NAME = 4096

# Where nothing is mapped: for symbols and sections that a file refers to and that are nowhere.
NOWHERE = (0x6F72_6364_0000_0000, 0x6F72_6364_FFFF_FFFF)

Resolve = Callable[[str], int | None]
U64Array = npt.NDArray[np.uint64]


class ModuleFile:
    """A `.ko` file.

    Args:
        source: the file, unpacked.

    Raises:
        UnsupportedFormat: it is not one, or its symbol table is damaged.
    """

    def __init__(self, source: ByteSource) -> None:
        self.path = source.name
        self.elf = ElfFile(source)
        if self.elf.type != ET_REL:
            raise UnsupportedFormat(source.name, "not a module: the file is linked already")

        sections = self.elf.sections
        table = next((section for section in sections if section.type == _SHT_SYMTAB), None)
        if table is None or table.link >= len(sections):
            raise UnsupportedFormat(source.name, "a module without symbols")
        strings = sections[table.link]
        if max(table.size, strings.size) > MAX_SYMBOLS:
            raise UnsupportedFormat(source.name, f"a symbol table of {table.size} bytes")

        self._symbols = _rows(self.elf.data(table), _SYMBOL)
        self._strings = self.elf.data(strings)

    def _name(self, offset: int) -> str:
        """A symbol's name; empty where it leaves the strings."""
        end = self._strings.find(b"\0", offset, offset + MAX_NAME)
        return self._strings[offset : max(end, offset)].decode("ascii", "replace")

    def offset_of(self, name: str, section: int) -> int | None:
        """Where in a section a symbol is; None where the file has none of that name there."""
        for row in np.flatnonzero(self._symbols["section"] == section).tolist():
            if self._name(int(self._symbols["name"][row])) == name:
                return int(self._symbols["value"][row])
        return None

    def places_of(self, name: str) -> list[tuple[int, int, int]]:
        """Section, offset in it and size of each symbol of that name that the file defines."""
        rows = self._symbols
        defined = (rows["section"] != _SHN_UNDEF) & (rows["section"] < _SHN_LORESERVE)
        named = [row for row in np.flatnonzero(defined).tolist() if self._name(int(rows["name"][row])) == name]
        return [(int(rows["section"][row]), int(rows["value"][row]), int(rows["size"][row])) for row in named]

    def linked(self, addresses: Mapping[str, int], resolve: Resolve) -> dict[str, tuple[int, bytes]]:
        """Address and bytes of each allocated section, linked.

        Args:
            addresses: where each section was loaded; one that is not named gets an address where nothing is.
            resolve: the address of a symbol that the module does not define, None where nobody does.

        Returns:
            Address and bytes by the section's name; of equal names the first.

        Raises:
            UnsupportedFormat: damaged, or larger than any module.
        """
        sections = self.elf.sections
        places = [addresses.get(section.name, (number + 1) << 32) for number, section in enumerate(sections)]
        values = self._values(np.array(places, dtype=np.uint64), resolve)

        relocations: dict[int, list[Section]] = {}
        for rela in sections:
            if rela.type == _SHT_RELA:
                relocations.setdefault(rela.info, []).append(rela)

        linked: dict[str, tuple[int, bytes]] = {}
        left = MAX_LOADED
        for number, section in enumerate(sections):
            if not section.flags & SHF_ALLOC or section.name in linked:
                continue

            relas = relocations.get(number, [])
            left -= sum(part.size for part in (section, *relas) if part.type != SHT_NOBITS)
            if left < 0:
                raise UnsupportedFormat(self.path, f"a module of more than {MAX_LOADED >> 20} MiB")

            data = bytearray(self.elf.data(section) if section.type != SHT_NOBITS else b"")
            for rela in relas:
                self._relocate(data, places[number], rela, values)
            linked[section.name] = (places[number], bytes(data))
        return linked

    def debug_linker(self, addresses: Mapping[str, int], resolve: Resolve) -> Relocate:
        """What links a section that is not loaded, such as those of debugging information.

        Args:
            addresses: where each loaded section is; one that is not named is nowhere near the kernel.
            resolve: the address of a symbol that the module does not define, None where nobody does. Such symbols stand for
                addresses in `NOWHERE`.

        Returns:
            A function of a section and its bytes, which gives the bytes linked; it raises UnsupportedFormat over damage.
        """
        sections = self.elf.sections
        places = [addresses.get(section.name, NOWHERE[0]) if section.flags & SHF_ALLOC else 0 for section in sections]
        values = self._values(np.array(places, dtype=np.uint64), lambda name: resolve(name) or NOWHERE[0])
        relocations: dict[str, list[Section]] = {}
        for rela in sections:
            if rela.type == _SHT_RELA and rela.info < len(sections):
                relocations.setdefault(sections[rela.info].name, []).append(rela)

        def relocate(section: Section, data: bytes) -> bytes:
            linked = bytearray(data)
            for rela in relocations.get(section.name, []):
                self._relocate(linked, 0, rela, values)
            return bytes(linked)

        return relocate

    def _values(self, places: U64Array, resolve: Resolve) -> U64Array:
        """The address of each symbol, by its number; 0 of one that nobody defines.

        Mirrors simplify_symbols() in kernel/module/main.c.

        Args:
            places: the address of each section, by its number.
            resolve: as for `linked`.
        """
        sections = self._symbols["section"]
        values = self._symbols["value"].copy()

        # Absolute symbols and the like have reserved numbers, and keep their value.
        is_defined = (sections > _SHN_UNDEF) & (sections < min(len(places), _SHN_LORESERVE))
        values[is_defined] += places[sections[is_defined]]

        for row in np.flatnonzero(sections == _SHN_UNDEF).tolist():
            values[row] = resolve(self._name(int(self._symbols["name"][row]))) or 0
        return values

    def _relocate(self, data: bytearray, address: int, rela: Section, values: U64Array) -> None:
        """Applies the relocations of one table to a section's bytes; those outside it are left out.

        Args:
            data: the section's bytes, which are changed.
            address: where they were loaded.
            rela: the table.
            values: the address of each symbol.
        """
        rows = _rows(self.elf.data(rela), _RELA)
        symbols = rows["info"] >> np.uint64(32)
        kinds = rows["info"] & np.uint64(0xFFFF_FFFF)
        if len(rows) and int(symbols.max()) >= len(values):
            raise UnsupportedFormat(self.path, f"{rela.name} names symbol {int(symbols.max())} of {len(values)}")

        targets = values[symbols] + rows["addend"].view(np.uint64)
        array = np.frombuffer(data, dtype=np.uint8)
        for kind, (width, is_relative) in _KINDS.items():
            if width > len(data):
                continue
            chosen = (kinds == kind) & (rows["offset"] <= np.uint64(len(data) - width))
            offsets = rows["offset"][chosen]
            amounts = targets[chosen]
            if is_relative:
                amounts = amounts - (offsets + np.uint64(address))

            # The low bytes of each amount, to the bytes from each offset on.
            written = np.ascontiguousarray(amounts).view(np.uint8).reshape(-1, 8)[:, :width]
            array[offsets.view(np.int64)[:, None] + np.arange(width)] = written


def _rows(data: bytes, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """A table's whole rows; half a row at its end is left out."""
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype=dtype)
