"""Which ORC row would the kernel itself find for this address, in the image's table or a module's?"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol

from orcdbg.base.errors import OrcdbgError
from orcdbg.kernel.modules import Module, module_orc, orc_budget
from orcdbg.orc.image_table import ImageOrc
from orcdbg.orc.table import Derivation, OrcEntry, OrcTable
from orcdbg.patches.kernel_code import KernelCode

if TYPE_CHECKING:
    from orcdbg.orc.derived_rows import DerivedRows

DERIVED = "derived"
"""Stands for a table's name where none has the row."""


class Rows(Protocol):
    """Rows as built: those of a kernel, of one table, or made ones."""

    def find(self, address: int) -> OrcEntry | None:
        """The entry for a run-time address, None where no row covers it."""


class OrcTables:
    """The rows of one stopped kernel. Mirrors orc_find() of arch/x86/kernel/unwind_orc.c.

    Args:
        code: the kernel.
        image: the image's table.
        warnings: is told of modules whose tables cannot be read.
    """

    def __init__(self, code: KernelCode, image: ImageOrc, warnings: list[str]) -> None:
        self._code = code
        self._image = image
        self._warnings = warnings
        self._of_modules: dict[int, OrcTable | None] = {}
        self._budget = orc_budget()  # all modules share it: each may claim the most there can be

    def find(self, address: int) -> OrcEntry | None:
        """The entry for a run-time address, derived where no table covers it; None where nothing tells."""
        if self._code.is_image_text(address):
            table = self.image_table
        else:
            module = self._code.names.module_at(address)
            if module is None:
                return None
            if module.address not in self._of_modules:
                self._of_modules[module.address] = self._read(module)
            table = self._of_modules[module.address]
        return self._derive(address) if table is None else table.find(address)

    @functools.cached_property
    def image_table(self) -> OrcTable | None:
        """The image's table; None, and a warning, where it has none that can be read."""
        try:
            return self._image.table
        except OrcdbgError as error:
            self._warnings.append(
                f"{error}; rows are derived from the instructions of functions, and such frames say so"
            )
            return None

    @functools.cached_property
    def _derived(self) -> DerivedRows:
        from orcdbg.orc.derived_rows import DerivedRows  # kernels with ORC need none

        return DerivedRows(self._code)

    def _derive(self, address: int) -> OrcEntry | None:
        found = self._derived.at(address)
        if found is None:
            return None
        return OrcEntry(DERIVED, 0, address, None, b"", found.row, Derivation(found.rule, found.doubt))

    def _read(self, module: Module) -> OrcTable | None:
        """A module's table; None where it has none, and a warning unless the image has none either."""
        if self.image_table is None:
            return None
        try:
            ips, ips_at, rows, rows_at = module_orc(self._code.linux, module, self._budget)
            return OrcTable(f"module {module.name}", ips, ips_at, rows, rows_at, self._image.choice.layout)
        except OrcdbgError as error:
            self._warnings.append(f"module {module.name}: no ORC table: {error}")
            return None
