"""Which ORC layout does this kernel use?

The header's hash decides. Without a known hash the kernel's BTF says where the bit-fields of `struct orc_entry` are (it
also tells RHEL 9.6's backport, which has the 6.4 layout and no header), and a vote over function entries, which must
nearly all read "sp+8, call", has the last word: it is the only thing that sees a renumbering of the registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orcdbg.base.errors import OrcdbgError
from orcdbg.orc.rows import FUNCTION_ENTRY, HASHES, LAYOUTS, OrcLayout

AGREEMENT = 0.75


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """A layout, what decided, and a warning where the decision is not certain."""

    layout: OrcLayout
    decided_by: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class EntryShape:
    """The bit-fields of `struct orc_entry` in the kernel's BTF."""

    type_bits: int
    has_end: bool
    has_signal: bool

    def fits(self, layout: OrcLayout) -> bool:
        """True when the layout has these bit-fields."""
        # Before 4.18 (d31a580266ee) the bit of `end` was zero in all rows, and had no name.
        has_room = layout.end_bit is not None or not self.has_end
        return self.type_bits == layout.type_bits and has_room and self.has_signal == (layout.signal_bit is not None)


def _vote(layout: OrcLayout, entries: Sequence[bytes]) -> float:
    """The share of function entries that decode as every function entry should."""
    return sum(layout.decode(raw) == FUNCTION_ENTRY for raw in entries) / max(len(entries), 1)


def choose_layout(header: bytes, shape: EntryShape | None, function_entries: Sequence[bytes]) -> LayoutChoice:
    """The layout of a table.

    Args:
        header: contents of `.orc_header`, empty without one.
        shape: bit-fields of `struct orc_entry` by BTF, None without.
        function_entries: raw rows at the entries of ordinary functions.

    Raises:
        OrcdbgError: no known layout fits.
    """
    known = HASHES.get(header)
    if known is not None:
        return LayoutChoice(known, f".orc_header {header.hex()}")
    candidates = [layout for layout in LAYOUTS if shape is None or shape.fits(layout)]
    best = max(candidates or LAYOUTS, key=lambda layout: _vote(layout, function_entries))
    share = _vote(best, function_entries)
    if share < AGREEMENT:
        raise OrcdbgError(
            f"no known ORC layout fits: the best, {best.name}, reads {share:.0%} of function entries right"
        )
    decided = f"{'BTF of struct orc_entry and ' if candidates and shape else ''}{share:.0%} of function entries"
    if not header:
        return LayoutChoice(best, decided)
    warning = (
        f"unknown .orc_header {header.hex()}: read as layout {best.name}, which fits {share:.0%} of function entries"
    )
    return LayoutChoice(best, decided, warning)
