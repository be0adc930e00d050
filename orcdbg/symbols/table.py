"""Which symbol has this name, and which symbol holds this address, in one ELF symbol table?

The table is kept as numpy columns over the file's bytes. Opening one costs a few milliseconds for 200,000 symbols: names
are compared by their first eight bytes, and the order by address is made on the first look-up by address.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import NotFound, UnsupportedFormat
from orcdbg.formats.elf import SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, Section
from orcdbg.image.vmlinux import KERNEL_BASE, Image

if TYPE_CHECKING:
    from orcdbg.base.near_names import Near

ENTRY = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
STT_SECTION, STT_FILE = 3, 4
STB_WEAK = 2
MAX_TABLE, MAX_NAME = 128 << 20, 4096  # bytes: some five million symbols
PER_CPU_SECTION = ".data..percpu"
SHF_WRITE = 1
# Names that scripts/mksysmap leaves out, by their first (at most eight) bytes.
_LEFT_OUT = (b".L", b"$")
# How names begin that the build makes beside those of the source, which nobody types.
_MADE = (".", "$", "__pfx_", "__crc_", "__ksymtab_", "__kstrtab", "__kcfi_typeid_", "__cfi_", "__UNIQUE_ID_")

U64Array = npt.NDArray[np.uint64]


class Symbol(NamedTuple):
    """A symbol: `address` as in its table, `size` in bytes as its ELF entry says, `letter` as nm prints it."""

    name: str
    address: int
    size: int
    letter: str
    per_cpu: bool


class Span(NamedTuple):
    """A symbol and the distance to the next one, the size that the kernel prints after the slash."""

    symbol: Symbol
    size: int


def _letter(info: int, section: Section | None) -> str:
    """nm's letter for a symbol of a section."""
    if section is None:
        letter = "a"
    elif section.flags & SHF_EXECINSTR:
        letter = "t"
    elif section.type == SHT_NOBITS:
        letter = "b"
    elif section.flags & SHF_ALLOC:
        letter = "d" if section.flags & SHF_WRITE else "r"
    else:
        letter = "n"
    if info >> 4 == STB_WEAK:
        return "w" if letter == "n" else "W"
    return letter.upper() if info >> 4 else letter


class SymbolTable:
    """An ELF symbol table.

    Args:
        path: for messages.
        entries: the `.symtab` bytes.
        strings: the `.strtab` bytes.
        sections: section headers by index, for letters and to tell per-CPU symbols.
        lowest: symbols below this address are found by name only (zero-based per-CPU symbols of kernels before 6.15).
    """

    def __init__(self, path: str, entries: bytes, strings: bytes, sections: Sequence[Section], lowest: int) -> None:
        self.path = path
        if max(len(entries), len(strings)) > MAX_TABLE:
            raise UnsupportedFormat(path, f"symbol tables of {len(entries)} and {len(strings)} bytes")
        self._strings = strings + bytes(8)
        self._sections = sections
        self._lowest = lowest
        self._found: dict[str, Symbol | None] = {}
        self.entries = np.frombuffer(entries[: len(entries) // ENTRY.itemsize * ENTRY.itemsize], dtype=ENTRY)
        if len(self.entries) and int(self.entries["name"].max()) > len(strings):
            raise UnsupportedFormat(path, "symbol names leave the string table")

    @functools.cached_property
    def _heads(self) -> U64Array:
        """The first eight bytes of each name as a number."""
        words: U64Array = np.ndarray((len(self._strings) - 7,), dtype="<u8", buffer=self._strings, strides=(1,))
        heads: U64Array = words[self.entries["name"]]
        return heads

    def name_of(self, index: int) -> str:
        """The name of entry `index`, UnsupportedFormat for one that is longer than any compiler makes."""
        start = int(self.entries["name"][index])
        end = self._strings.find(b"\0", start, start + MAX_NAME)
        if end < 0:
            raise UnsupportedFormat(self.path, f"a symbol's name of more than {MAX_NAME} bytes")
        return self._strings[start:end].decode("utf-8", "replace")

    def symbol(self, index: int) -> Symbol:
        """Entry `index` as a Symbol."""
        entry = self.entries[index]
        number = int(entry["section"])
        section = self._sections[number] if number < min(len(self._sections), SHN_LORESERVE) else None
        per_cpu = section is not None and section.name == PER_CPU_SECTION
        letter = _letter(int(entry["info"]), section)
        return Symbol(self.name_of(index), int(entry["value"]), int(entry["size"]), letter, per_cpu)

    def find_all(self, name: str) -> list[Symbol]:
        """All symbols of that name, in table order."""
        wanted = name.encode() + b"\0"
        head = int.from_bytes(wanted[:8], "little")
        mask = np.uint64((1 << 8 * min(len(wanted), 8)) - 1)
        hits = np.flatnonzero((self._heads & mask) == np.uint64(head))
        starts = self.entries["name"]
        same = [int(i) for i in hits if self._strings.startswith(wanted, int(starts[i]))]
        return [self.symbol(i) for i in same if self.entries["section"][i] != SHN_UNDEF]

    def starting(self, prefix: str) -> dict[str, int]:
        """Addresses of all symbols whose name begins with `prefix`, by the rest of the name."""
        wanted = prefix.encode()
        size = min(len(wanted), 8)
        mask = np.uint64((1 << 8 * size) - 1)
        hits = np.flatnonzero((self._heads & mask) == np.uint64(int.from_bytes(wanted[:size], "little")))
        hits = hits[self.entries["section"][hits] != SHN_UNDEF]
        names = [self.name_of(index) for index in hits.tolist()]
        pairs = zip(names, self.entries["value"][hits].tolist(), strict=True)
        return {name.removeprefix(prefix): value for name, value in pairs if name.startswith(prefix)}

    def find(self, name: str) -> Symbol | None:
        """The symbol of that name, global before local; None where there is none."""
        if name not in self._found:
            found = self.find_all(name)
            self._found[name] = min(found, key=lambda symbol: symbol.letter.islower()) if found else None
        return self._found[name]

    def get(self, name: str) -> Symbol:
        """Like `find`, for a symbol that must be there.

        Raises:
            NotFound: it is not.
        """
        symbol = self.find(name)
        if symbol is None:
            raise NotFound("symbol", name)
        return symbol

    @functools.cached_property
    def _by_address(self) -> tuple[U64Array, npt.NDArray[np.intp]]:
        """Addresses in rising order and the entries they belong to, as the kernel's own name table has them."""
        entries = self.entries
        kinds = entries["info"] & 15
        keep = (kinds != STT_SECTION) & (kinds != STT_FILE) & (entries["section"] != SHN_UNDEF)
        keep &= (entries["section"] < SHN_LORESERVE) & (entries["value"] >= self._lowest) & (entries["name"] != 0)
        for prefix in _LEFT_OUT:
            keep &= self._heads & np.uint64((1 << 8 * len(prefix)) - 1) != np.uint64(int.from_bytes(prefix, "little"))
        indices = np.flatnonzero(keep)
        values = entries["value"][indices]
        order = np.argsort(values, kind="stable")
        return values[order], indices[order]

    def at(self, address: int) -> Span | None:
        """The symbol that holds `address`, chosen among equals as the kernel's kallsyms does."""
        if not 0 <= address < 1 << 64:  # a damaged pointer less the slide may be neither
            return None
        values, indices = self._by_address
        end = int(np.searchsorted(values, np.uint64(address), side="right"))
        if end == 0:
            return None
        start = int(np.searchsorted(values, values[end - 1], side="left"))
        symbol = self._chosen(indices[start:end])
        last = int(values[end]) if end < len(values) else symbol.address + max(symbol.size, 1)
        return Span(symbol, last - symbol.address)

    def holds(self, address: int) -> bool:
        """Whether a symbol's own size reaches to an address, and it is not merely behind one.

        A label's size is 0: it holds its own address alone.
        """
        if not 0 <= address < 1 << 64:
            return False
        values, indices = self._by_address
        end = int(np.searchsorted(values, np.uint64(address), side="right"))
        if end == 0:
            return False
        first = int(values[end - 1])
        start = int(np.searchsorted(values, np.uint64(first), side="left"))
        size = int(self.entries["size"][indices[start:end]].max())
        return address - first < max(size, 1)

    def _chosen(self, indices: npt.NDArray[np.intp]) -> Symbol:
        """The one of several symbols at an address that the kernel prints."""
        return min((self.symbol(int(i)) for i in indices), key=kallsyms_rank)

    def size_at(self, address: int) -> int | None:
        """The distance from an address to the next symbol; None behind the last. Cheaper than `at`, which finds names."""
        values, _ = self._by_address
        end = int(np.searchsorted(values, np.uint64(address), side="right"))
        return int(values[end]) - address if end < len(values) else None

    def containing(self, part: str) -> list[Symbol]:
        """All symbols that have an address and whose name contains `part`, by address."""
        _, indices = self._by_address
        return [self.symbol(int(i)) for i in indices if part in self.name_of(int(i))]

    def near(self, word: str) -> list[Near]:
        """Names that somebody may have meant who typed a word that is none of them."""
        from orcdbg.base.near_names import find_near  # only where something went wrong

        entries = self.entries
        kinds = entries["info"] & 15
        keep = (kinds != STT_SECTION) & (kinds != STT_FILE) & (entries["section"] != SHN_UNDEF)
        found = find_near(word, self._strings, entries["name"][keep].astype(np.int64))
        return [each for each in found if not each.name.startswith(_MADE) or word.startswith(_MADE)]

    def between(self, start: int, end: int) -> list[Symbol]:
        """The symbols of [start, end), by address, also of those that are zero-based and so are not found by `at`."""
        entries = self.entries
        kinds = entries["info"] & 15
        keep = (entries["value"] >= start) & (entries["value"] < end) & (kinds != STT_SECTION) & (kinds != STT_FILE)
        keep &= (entries["section"] != SHN_UNDEF) & (entries["section"] < SHN_LORESERVE)
        indices = np.flatnonzero(keep)
        order = np.argsort(entries["value"][indices], kind="stable")
        return [self.symbol(int(index)) for index in indices[order]]

    def names(self, accept: Callable[[str], bool] | None = None) -> list[str]:
        """All names that have an address, sorted; slow (a tenth of a second), for completion and listings."""
        _, indices = self._by_address
        found = {self.name_of(int(i)) for i in indices}
        return sorted(name for name in found if accept is None or accept(name))


def symbol_data(image: Image) -> tuple[bytes, bytes]:
    """The entries of a vmlinux's symbol table, whole ones of `ENTRY`, and the strings that hold their names.

    Raises:
        UnsupportedFormat: it has none, or they name no strings.
    """
    elf = image.elf
    section = elf.by_name.get(".symtab")
    if section is None or not section.size:
        raise UnsupportedFormat(image.path, "no symbol table (.symtab)")
    if section.link >= len(elf.sections):
        raise UnsupportedFormat(image.path, "the symbol table names no string table")
    strings = elf.sections[section.link]
    if max(section.size, strings.size) > MAX_TABLE:
        raise UnsupportedFormat(image.path, f"symbol tables of {section.size} and {strings.size} bytes")
    data = elf.data(section)
    return data[: len(data) // ENTRY.itemsize * ENTRY.itemsize], elf.data(strings)


def image_symbols(image: Image) -> SymbolTable:
    """A vmlinux's symbols, at link addresses.

    Raises:
        UnsupportedFormat: it has none, or they name no strings.
    """
    entries, strings = symbol_data(image)
    return SymbolTable(image.path, entries, strings, image.elf.sections, KERNEL_BASE)


def stands_back(name: str) -> tuple[bool, bool]:
    """Sort key: names that others at their address go before, wherever the names are from.

    Aliases of code made for the startup (`__pi_`), which kernels before 7.0 keep none of. And, other than in the kernel, the
    thunks' table does not lend its name to the first of its thunks, that of rax (arch/x86/lib/retpoline.S).
    """
    return name.startswith("__pi_"), name.endswith("_thunk_array")


def kallsyms_rank(symbol: Symbol) -> tuple[tuple[bool, bool], bool, bool, int, str]:
    """Sort key for symbols at one address, after scripts/kallsyms.c.

    Names that its tables leave out come last; then strong ones come first, those not made by the linker script, those with
    the fewest underscores, and last the order of names, in which `nm -n` hands equals on.
    """
    name = symbol.name
    linker_made = name.startswith(("__start_", "__stop_", "__end_")) or name.endswith(("_start", "_end"))
    underscores = len(name) - len(name.lstrip("_"))
    is_linker_made = linker_made and name.startswith("__")
    return stands_back(name), symbol.letter in "wW", is_linker_made, underscores, name
