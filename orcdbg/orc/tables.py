"""Which ORC row would the kernel itself find for this address, in the image's table or a module's?"""

from __future__ import annotations

from typing import Protocol

from orcdbg.base.errors import OrcdbgError
from orcdbg.kernel.modules import Module, module_orc, orc_budget
from orcdbg.orc.image_table import ImageOrc
from orcdbg.orc.table import OrcEntry, OrcTable
from orcdbg.patches.kernel_code import KernelCode


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
        """The entry for a run-time address, None where no row covers it.

        Raises:
            OrcdbgError: the image's table cannot be read.
        """
        if self._code.is_image_text(address):
            return self._image.table.find(address)
        module = self._code.names.module_at(address)
        if module is None:
            return None
        if module.address not in self._of_modules:
            self._of_modules[module.address] = self._read(module)
        table = self._of_modules[module.address]
        return None if table is None else table.find(address)

    def _read(self, module: Module) -> OrcTable | None:
        """A module's table; None, and a warning, where it has none."""
        try:
            ips, ips_at, rows, rows_at = module_orc(self._code.linux, module, self._budget)
            return OrcTable(f"module {module.name}", ips, ips_at, rows, rows_at, self._image.choice.layout)
        except OrcdbgError as error:
            self._warnings.append(f"module {module.name}: no ORC table: {error}")
            return None
