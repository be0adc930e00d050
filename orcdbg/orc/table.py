"""Which ORC entry covers an address?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.base.reasons import Reason
from orcdbg.base.sizes import U64
from orcdbg.orc.cfa import CfaRule
from orcdbg.orc.rows import ENTRY, OrcLayout, OrcRow

MAX_ENTRIES = 1 << 24


class Derivation(NamedTuple):
    """What a row that no table has was derived to: its rule, and why it may be wrong, if it may."""

    rule: CfaRule | None
    doubt: Reason | None


class OrcEntry(NamedTuple):
    """A row and where it stands.

    `number` counts in order of address; `address` is that of the six `raw` bytes, None where the table has none.
    `derivation` is set where no table has the row, and it was derived from instructions: then there are no bytes.
    """

    table: str
    number: int
    entry_ip: int
    address: int | None
    raw: bytes
    row: OrcRow
    derivation: Derivation | None = None


class OrcTable:
    """A sorted ORC table.

    Args:
        name: `vmlinux` or `module NAME`.
        ips: the `.orc_unwind_ip` array, signed 32-bit, each relative to its own address.
        ips_address: run-time address of that array.
        rows: the `.orc_unwind` array, six bytes each.
        rows_address: its run-time address.
        layout: how the rows are laid out.

    Raises:
        UnsupportedFormat: the arrays are not of equal length, or are too long.
    """

    def __init__(
        self, name: str, ips: bytes, ips_address: int, rows: bytes, rows_address: int, layout: OrcLayout
    ) -> None:
        count = len(ips) // 4
        if len(ips) % 4 or len(rows) != count * ENTRY.size or count > MAX_ENTRIES:
            raise UnsupportedFormat(name, f"ORC table of {len(ips)} bytes of addresses and {len(rows)} bytes of rows")
        self.name = name
        self.layout = layout
        self._rows, self._rows_address = rows, rows_address
        relative = np.frombuffer(ips, dtype="<i4").astype(np.int64)
        places = np.arange(count, dtype=np.int64) * 4 + np.int64(signed(ips_address, 64))
        self.ips: npt.NDArray[np.uint64] = (relative + places).view(np.uint64)
        self._order: npt.NDArray[np.intp] | None = None
        if count and bool((self.ips[1:] < self.ips[:-1]).any()):
            self._sort()

    def _sort(self) -> None:
        """Puts a table that the kernel would sort at boot or load into its order: of equal addresses, terminators first."""
        flags = np.ndarray((len(self.ips),), dtype="<u2", buffer=self._rows, offset=4, strides=(ENTRY.size,))
        self._order = np.lexsort((~self.layout.are_terminators(flags), self.ips))
        self.ips = self.ips[self._order]

    def __len__(self) -> int:
        return len(self.ips)

    def entry(self, index: int) -> OrcEntry:
        """Entry `index` in order of address."""
        place = int(self._order[index]) if self._order is not None else index
        raw = self._rows[place * ENTRY.size : (place + 1) * ENTRY.size]
        # Where the kernel had to sort its table (to 5.5, f14bf6a350df), no row lies in memory where it lies in the file.
        has_place = self._rows_address and self._order is None
        address = self._rows_address + place * ENTRY.size if has_place else None
        return OrcEntry(self.name, index, int(self.ips[index]), address, raw, self.layout.decode(raw))

    def find(self, address: int) -> OrcEntry | None:
        """The entry that covers a run-time address: the last whose ip is not above it; None before the first."""
        index = int(np.searchsorted(self.ips, np.uint64(address), side="right")) - 1 if 0 <= address <= U64 else -1
        return self.entry(index) if index >= 0 else None
