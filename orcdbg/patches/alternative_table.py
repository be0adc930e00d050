"""What does `.altinstructions` say: which site, which replacement, under which feature bit?

Mirrors struct alt_instr in arch/x86/include/asm/alternative.h. The size of an entry tells its layout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orcdbg.base.errors import UnsupportedFormat
from orcdbg.base.reading import signed
from orcdbg.patches.tables import check_entries

ALTERNATIVES = ".altinstructions"

_NOT_IN_ID = 1 << 15  # 12-byte entries keep the NOT flag in the feature number
_FLAG_NOT, _FLAG_DIRECT_CALL = 1, 2
_ENOUGH = 0.5  # of the entries must be possible for a layout to be believed
_LAYOUTS = {
    12: np.dtype([("site", "<i4"), ("repl", "<i4"), ("feature", "<u2"), ("size", "u1"), ("repl_size", "u1")]),
    13: np.dtype(
        [("site", "<i4"), ("repl", "<i4"), ("feature", "<u2"), ("size", "u1"), ("repl_size", "u1"), ("pad", "u1")]
    ),
    14: np.dtype(
        [("site", "<i4"), ("repl", "<i4"), ("feature", "<u2"), ("flags", "<u2"), ("size", "u1"), ("repl_size", "u1")]
    ),
}


class AltEntry(NamedTuple):
    """One entry of `.altinstructions`, addresses at run time."""

    site: int
    replacement: int
    feature: int
    negated: bool
    direct_call: bool
    size: int
    replacement_size: int
    padding: int = 0  # of the site's bytes, the last ones, which the build added as NOPs; told until 5.11 alone


def entry_size(table: bytes) -> int | None:
    """Bytes of an entry, told by which entry size makes lengths and flags possible; None for no table.

    Raises:
        UnsupportedFormat: no entry size makes most of them so.
    """
    if not table:
        return None
    fits = {size: float(_plausible(table, size).mean()) for size in (14, 12, 13) if len(table) >= size}
    best = max(fits, key=lambda size: (len(table) % size == 0, fits[size]), default=0)
    if not best or fits[best] < _ENOUGH:
        raise UnsupportedFormat(ALTERNATIVES, f"{len(table)} bytes fit no known entry layout")
    return best


def _rows(table: bytes, size: int) -> npt.NDArray[np.void]:
    rows: npt.NDArray[np.void] = np.frombuffer(table[: len(table) // size * size], dtype=_LAYOUTS[size])
    return rows


def _plausible(table: bytes, size: int) -> npt.NDArray[np.bool_]:
    """For each entry of that size, whether its lengths and flags are possible."""
    rows = _rows(table, size)
    good: npt.NDArray[np.bool_] = (rows["repl_size"] <= rows["size"]) & (rows["size"] > 0)
    if size == 14:
        good &= rows["flags"] <= (_FLAG_NOT | _FLAG_DIRECT_CALL)
    return good


class AlternativeTable:
    """The decoded table: `.altinstructions` of the image or of a module, linked or loaded at `address`.

    `size` is that of an entry, where it is known from another table of the same kernel.

    Raises:
        UnsupportedFormat: it has more entries than any kernel has.
    """

    def __init__(self, table: bytes, address: int, size: int | None = None) -> None:
        size = size or entry_size(table) or 12
        check_entries(ALTERNATIVES, len(table) // size)
        rows, good = _rows(table, size), _plausible(table, size)
        places = np.arange(len(rows), dtype=np.int64) * size + np.int64(signed(address, 64))
        self.problems = [f"{ALTERNATIVES}: entry {row}: impossible lengths or flags" for row in np.flatnonzero(~good)]
        if self.problems:
            rows, places = rows[good], places[good]
        self.has_flags = size == 14
        self.has_padding = size == 13
        self._rows = rows
        self.sites = (places + rows["site"]).view(np.uint64)
        self._replacements = (places + 4 + rows["repl"]).view(np.uint64)
        self.sizes = self._group_sizes()

    def _group_sizes(self) -> npt.NDArray[np.uint64]:
        """Length of each entry's site; entries of one site may differ, and the longest counts (since 6.9)."""
        sizes: npt.NDArray[np.uint64] = self._rows["size"].astype(np.uint64)
        if not len(sizes):
            return sizes
        firsts = np.flatnonzero(np.concatenate(([True], self.sites[1:] != self.sites[:-1])))
        longest = np.maximum.reduceat(sizes, firsts)
        return np.repeat(longest, np.diff(np.append(firsts, len(sizes))))

    def __len__(self) -> int:
        return len(self._rows)

    def entry(self, index: int) -> AltEntry:
        """Entry `index` in table order."""
        row = self._rows[index]
        feature = int(row["feature"])
        flags = int(row["flags"]) if self.has_flags else (_FLAG_NOT if feature & _NOT_IN_ID else 0)
        return AltEntry(
            int(self.sites[index]),
            int(self._replacements[index]),
            feature if self.has_flags else feature & ~_NOT_IN_ID,
            bool(flags & _FLAG_NOT),
            bool(flags & _FLAG_DIRECT_CALL),
            int(self.sizes[index]),
            int(row["repl_size"]),
            int(row["pad"]) if self.has_padding else 0,
        )
