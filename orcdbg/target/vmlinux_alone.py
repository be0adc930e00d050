"""What can be said of a vmlinux that no snapshot goes with?"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from orcdbg.image.debug_info import DebugInfo
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.features import Features
from orcdbg.kernel.linux import Linux
from orcdbg.kernel.names import Names
from orcdbg.orc.cfa import CfaRule, cfa_rule
from orcdbg.orc.image_table import sp_indirect_adds_last
from orcdbg.orc.layout import LayoutChoice
from orcdbg.orc.table import OrcEntry, OrcTable
from orcdbg.orc.union import UnionTable, union_of
from orcdbg.patches.build import Build
from orcdbg.patches.built_text import BuiltText
from orcdbg.patches.site import WorkingText
from orcdbg.patches.stack_mechanisms import stack_passes
from orcdbg.symbols.btf import StructIndex
from orcdbg.symbols.kallsyms import vmlinux_symbols
from orcdbg.symbols.table import SymbolTable
from orcdbg.target.built_kernel import BuiltKernel

if TYPE_CHECKING:
    from orcdbg.target.kernel_types import FoundTypes, TypeOptions


class UnbootedKernel:
    """A kernel as built, at its link addresses; its variables have the values the build gave them.

    Args:
        image: the vmlinux.
        type_options: where the user says that types are which the image lacks.
    """

    def __init__(self, image: Image, type_options: TypeOptions | None = None) -> None:
        self.image = image
        self.symbols: SymbolTable = vmlinux_symbols(image)
        self.warnings: list[str] = []
        self._built = BuiltKernel(image, self.symbols, 0, self.warnings, type_options)

    @property
    def debug(self) -> DebugInfo:
        """The debugging information of the image."""
        return self._built.debug

    @property
    def built_text(self) -> BuiltText:
        """The text as built."""
        return self._built.code.built

    @property
    def types(self) -> StructIndex:
        """The kernel's structures."""
        return self._built.types

    @property
    def found_types(self) -> FoundTypes:
        """The kernel's types, and where they are from."""
        return self._built.found_types

    @functools.cached_property
    def linux(self) -> Linux:
        """Variables and members by name; memory is the image."""
        return Linux(self.image, self.symbols, self.types, 0)

    @functools.cached_property
    def names(self) -> Names:
        """Names of addresses."""
        return Names(self.linux)

    @property
    def layout(self) -> LayoutChoice:
        """The ORC layout, and what decided it."""
        return self._built.orc.choice

    @property
    def orc_table(self) -> OrcTable:
        """The image's ORC table."""
        return self._built.orc.table

    def stated(self, address: int) -> tuple[OrcEntry | None, CfaRule | None]:
        """The entry for an address, and its rule."""
        entry = self.orc_table.find(address)
        return entry, None if entry is None else cfa_rule(entry.row, sp_indirect_adds_last(self.linux))

    @functools.cached_property
    def union(self) -> UnionTable:
        """The rows of all alternatives of each site of core text."""
        built = self.built_text
        build = Build(self.image, self.linux, built, Features(self.linux))
        start, end = self.linux.address("_text"), self.linux.address("_etext")

        def read(site: int, size: int) -> WorkingText:
            return WorkingText(site, built.read(site, size))

        return union_of(stack_passes(build), read, self.stated, start, end)
