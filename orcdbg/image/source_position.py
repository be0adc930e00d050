"""Where in the source is an address, with the functions that the compiler inlined there?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from orcdbg.formats.dwarf_lines import SourceLine


class Inlined(NamedTuple):
    """A function that the compiler put into another, and where in it the address is."""

    symbol: str
    at: SourceLine | None


class Position(NamedTuple):
    """Where an address is in the source: its own line; the functions inlined there, innermost first; and the line in the
    function that is not inlined, which is the same where nothing is.
    """

    line: SourceLine | None
    inlined: tuple[Inlined, ...]
    function_line: SourceLine | None
