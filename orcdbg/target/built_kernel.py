"""What of a kernel lasts with its image: nothing here is read from memory, and nothing changes while it runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from orcdbg.base.reading import read_cstring
from orcdbg.image.debug_info import DebugInfo
from orcdbg.image.vmlinux import Image
from orcdbg.orc.image_table import ImageOrc
from orcdbg.patches.image_code import ImageCode
from orcdbg.symbols.btf import Btf, StructIndex
from orcdbg.symbols.table import SymbolTable

if TYPE_CHECKING:
    from orcdbg.typed.dwarf_types import DwarfTypes

_MAX_BANNER = 512


class BuiltKernel:
    """A kernel as built, where it runs; each table is read on first use.

    Args:
        image: the vmlinux, or what memory holds of it.
        symbols: the image's symbols, at link addresses.
        slide: run-time minus link addresses.
        warnings: is told what the user should know.
    """

    def __init__(self, image: Image, symbols: SymbolTable, slide: int, warnings: list[str]) -> None:
        self.image = image
        self.symbols = symbols
        self.slide = slide
        self._warnings = warnings
        self.debug = DebugInfo(image, warnings.append)
        self.code = ImageCode(image, slide, self.debug)

    @functools.cached_property
    def types(self) -> StructIndex:
        """The kernel's structures."""
        return Btf(self.image.section_data(".BTF"), f"{self.image.path}: .BTF").structs

    @functools.cached_property
    def debug_types(self) -> DwarfTypes | None:
        """The types of the image's DWARF, for what BTF does not describe; None where it has none."""
        units = self.debug.units
        if units is None:
            return None

        from orcdbg.typed.dwarf_types import DwarfTypes  # importing pyelftools takes 25 to 40 ms

        return DwarfTypes(units, named=False)

    @functools.cached_property
    def orc(self) -> ImageOrc:
        """The image's ORC table, and its layout."""
        return ImageOrc(self.image, self.types, self.slide, self._warnings)


def built_banner(image: Image, symbols: SymbolTable) -> bytes:
    """The kernel's banner as built (`linux_banner`), empty where the image has none."""
    symbol = symbols.find("linux_banner")
    return b"" if symbol is None else read_cstring(image, symbol.address, _MAX_BANNER)
