"""What does call frame information say of one address: where is the CFA, and where are the caller's registers?

What others say in these words too (`unwind/registers/saves.py`, by instructions) needs no reader of DWARF.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

CFA = "cfa"


class Place(NamedTuple):
    """Where a value is: the word at `base` + `offset`, `base` being `cfa` or a register.

    For a CFA, `indirect` tells the word there from the address itself; a saved register is always the word.
    """

    base: str
    offset: int
    indirect: bool = True

    @property
    def counts_from_cfa(self) -> bool:
        """True where `base` is no register."""
        return self.base == CFA


@dataclass(slots=True)
class Row:
    """What holds at one address: the CFA, and for each register that does not still hold its caller's value, where that is.

    None is a rule that is not followed here, or a value that is lost.
    """

    cfa: Place | None = None
    saved: dict[str, Place | None] = field(default_factory=dict)

    def copy(self) -> Row:
        """A row that can be changed without changing this one."""
        return Row(self.cfa, dict(self.saved))
