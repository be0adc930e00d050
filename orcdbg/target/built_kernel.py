"""What of a kernel lasts with its image, and does not change while it runs?

All of it is the image's. Only types that the image lacks are taken from elsewhere, memory among it, where they last as well.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orcdbg.base.reading import AddressSpace, read_cstring
from orcdbg.image.debug_info import DebugInfo
from orcdbg.image.vmlinux import Image
from orcdbg.orc.image_table import ImageOrc
from orcdbg.patches.image_code import ImageCode
from orcdbg.symbols.btf import SECTION, Btf, StructIndex
from orcdbg.symbols.table import SymbolTable

if TYPE_CHECKING:
    from orcdbg.target.kernel_types import FoundTypes, KernelTypes, TypeOptions
    from orcdbg.typed.dwarf_types import DwarfTypes

_MAX_BANNER = 512


class BuiltKernel:
    """A kernel as built, where it runs; each table is read on first use.

    Args:
        image: the vmlinux, or what memory holds of it.
        symbols: the image's symbols, at link addresses.
        slide: run-time minus link addresses.
        warnings: is told what the user should know.
        options: where the user says that types are.
        running: memory and VMCOREINFO of the kernel that runs, which may have them; None of a vmlinux alone.
    """

    def __init__(
        self,
        image: Image,
        symbols: SymbolTable,
        slide: int,
        warnings: list[str],
        options: TypeOptions | None = None,
        running: tuple[AddressSpace, Mapping[str, str]] | None = None,
    ) -> None:
        self.image = image
        self.symbols = symbols
        self.slide = slide
        self._warnings = warnings
        self.debug = DebugInfo(image, warnings.append)
        self.code = ImageCode(image, slide, self.debug)
        self._options = options
        self._running = running
        is_given = options is not None and options.btf is not None
        # The usual case needs none of the search for types, and no module of it.
        self._has_types = not image.is_memory and image.find_section(SECTION) is not None and not is_given

        # What has to be searched for may not be there, or be another kernel's: better said before anything is asked.
        if not self._has_types and (running is not None or is_given):
            _ = self._searched.found

    @functools.cached_property
    def _searched(self) -> KernelTypes:
        from orcdbg.target.kernel_types import KernelTypes, RunningKernel, TypeOptions

        running = None if self._running is None else RunningKernel(*self._running)
        options = self._options or TypeOptions()
        return KernelTypes(self.image, self.symbols, self.slide, self.debug, options, running, self._warnings.append)

    @property
    def found_types(self) -> FoundTypes:
        """The kernel's types, and where they are from; errors as of `KernelTypes.found`."""
        return self._searched.found

    @functools.cached_property
    def types(self) -> StructIndex:
        """The kernel's structures."""
        if self._has_types:
            return Btf(self.image.section_data(SECTION), f"{self.image.path}: {SECTION}").structs
        return self._searched.found.btf.structs

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
