"""Where does a function have its stack pointer, and where its caller's registers, as compilers write functions?

Rows that count from rbp do not say the first, and no row says the second. `registers/saves.py` proves where registers are,
instruction by instruction; a judge of very many frames goes by the outline of the text.
"""

from __future__ import annotations

from orcdbg.base.errors import MemoryFault
from orcdbg.formats.call_frame_row import Place, Row
from orcdbg.patches.code import Code
from orcdbg.x86.stack_depth import StackDepths, stack_depths

MAX_FUNCTION = 1 << 16
"""Bytes of text."""


class FrameDepths:
    """Answers from the text of one kernel, kept for the next time.

    Args:
        code: the kernel: its text as built, in which nothing is probed, or where that is missing as it ran.
    """

    def __init__(self, code: Code) -> None:
        self._code = code
        self._functions: dict[int, StackDepths | None] = {}

    def row(self, ip: int, exact: bool) -> Row | None:
        """Where a frame's caller's registers are; None where its function's instructions do not tell."""
        found = self.function(ip, exact)
        depth = None if found is None else found.at(ip, exact)
        if found is None or depth is None:
            return None
        row = Row()
        for register, slot in found.pushed.items():
            if slot <= depth.start:
                row.saved[register] = Place("cfa", -slot)
        for register in found.written - found.pushed.keys():
            row.saved[register] = None
        return row

    def at(self, ip: int, exact: bool) -> range | None:
        """Bytes from a frame's stack pointer to its CFA, as a range; None where the function's instructions do not tell."""
        found = self.function(ip, exact)
        return None if found is None else found.at(ip, exact)

    def function(self, ip: int, exact: bool) -> StackDepths | None:
        """What is known of the function that an ip is in; None where that is nothing."""
        place = self._code.locate(ip if exact else ip - 1)
        if place is None or not place.is_text or not 0 < place.size <= MAX_FUNCTION or ".cold" in place.symbol:
            return None
        if place.start not in self._functions:
            self._functions[place.start] = self._depths(place.start, place.size)
        return self._functions[place.start]

    def _depths(self, start: int, size: int) -> StackDepths | None:
        for text in (self._code.built, self._code.text):
            try:
                return stack_depths(text.read(start, size), start)
            except MemoryFault:
                continue
        return None
