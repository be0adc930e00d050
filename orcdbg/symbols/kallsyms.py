"""Which symbols does the kernel itself know, where no file has a symbol table?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.formats.elf import SHF_ALLOC, SHT_NOBITS, Section
from orcdbg.formats.kallsyms import KERNEL_BASE, Kallsyms, find_kallsyms
from orcdbg.image.memory_image import MemoryImage
from orcdbg.image.vmlinux import Image
from orcdbg.symbols.table import ENTRY, PER_CPU_SECTION, Symbol, SymbolTable, image_symbols, stands_back

_WEAK = "WV"
_MAX_AREA = 256 << 20
_PER_CPU = Section(PER_CPU_SECTION, 1, SHF_ALLOC, 0, 0, 0, 0, 0, 0)
_OTHER = Section("", 1, SHF_ALLOC, 0, 0, 0, 0, 0, 0)


class KallsymsTable(SymbolTable):
    """The kernel's own symbols, as a symbol table: a symbol's size is the distance to the next address that has one.

    Args:
        path: for messages.
        found: the symbols.
        slide: what is taken off addresses to make them link addresses.
    """

    def __init__(self, path: str, found: Kallsyms, slide: int = 0) -> None:
        at = found.addresses
        values = np.where(at >= np.uint64(KERNEL_BASE), at - np.uint64(slide), at) if slide else at
        entries = np.zeros(len(at), dtype=ENTRY)
        entries["name"], entries["value"], entries["size"] = found.name_at, values, _sizes(values)
        entries["section"] = np.where(values < np.uint64(KERNEL_BASE), 1, 2)
        super().__init__(path, entries.tobytes(), found.strings, (_OTHER, _PER_CPU, _OTHER), KERNEL_BASE)
        self._letters = found.letters

    def symbol(self, index: int) -> Symbol:
        """Entry `index`, with the letter that the kernel keeps."""
        found = super().symbol(index)
        letter = chr(self._letters[index])
        return found._replace(letter="W" if letter in _WEAK else letter)

    def _chosen(self, indices: npt.NDArray[np.intp]) -> Symbol:
        """The first in the kernel's table, to which its own look-up goes back; but for names that stand back anywhere."""
        return min((self.symbol(int(i)) for i in indices), key=lambda symbol: stands_back(symbol.name))


def _sizes(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The distance from each value to the next that is another one; 0 for the last."""
    following = np.searchsorted(values, values, side="right")
    ends = np.append(values, values[-1:])[following]
    return ends - values


def image_kallsyms(image: Image) -> KallsymsTable:
    """The symbols that a stripped image holds as the kernel's own data, at link addresses.

    Raises:
        UnsupportedFormat: there are none.
    """
    section = image.find_section(".rodata")
    if section is None or section.type == SHT_NOBITS or section.size > _MAX_AREA or section.address % 8:
        raise UnsupportedFormat(image.path, "no symbol table (.symtab), and no read-only data to find kallsyms in")
    found = find_kallsyms(image.elf.data(section), section.address, image.path)
    return KallsymsTable(image.path, found)


def vmlinux_symbols(image: Image) -> SymbolTable:
    """A vmlinux's symbols, at link addresses: from its symbol table, else from the kernel's own.

    Raises:
        UnsupportedFormat: it has neither, or they are damaged.
    """
    if isinstance(image, MemoryImage):
        return KallsymsTable(image.path, image.kallsyms, image.slide)
    return image_symbols(image) if image.find_section(".symtab") is not None else image_kallsyms(image)
