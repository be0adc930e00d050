"""How does a place in the source look, with the functions that are inlined there?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orcdbg.views.page import Line, line

if TYPE_CHECKING:
    from orcdbg.formats.dwarf_lines import SourceLine
    from orcdbg.image.source_position import Position


def place(found: SourceLine | None) -> str:
    """`file:line`."""
    return "no line known" if found is None else f"{found.file}:{found.line}"


def words(position: Position) -> list[str]:
    """A position in words, the innermost function first."""
    inlined = [f"[inlined] {one.symbol} at {place(one.at)}" for one in position.inlined]
    return [*inlined, f"at {place(position.function_line)}"]


def position_lines(position: Position | None, indent: int) -> Iterator[Line]:
    """A position, a line for each function."""
    for text in words(position) if position is not None else ():
        yield line(" " * indent, (text, "note"))


def position_json(position: Position | None) -> dict[str, Any]:
    """The fields of FRAME that are about the source."""
    line_of = position.line if position is not None else None
    outer = position.function_line if position is not None else None
    inlined = None
    if position is not None:
        inlined = [
            {"symbol": one.symbol, "file": one.at.file if one.at else None, "line": one.at.line if one.at else None}
            for one in position.inlined
        ]
    return {
        "file": line_of.file if line_of else None,
        "line": line_of.line if line_of else None,
        "inlined": inlined,
        "function_file": outer.file if outer else None,
        "function_line": outer.line if outer else None,
    }
