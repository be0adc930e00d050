"""How do breakpoints and watched memory look?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.stops import Stops
from orcdbg.views.page import Line, line
from orcdbg.views.view import Width, view


def stops_lines(result: Stops, width: Width) -> Iterator[Line]:
    """Breakpoints and watched memory."""
    if not result.stops:
        yield line("no breakpoints, nothing is watched")
    for number, address, size, name in result.stops:
        what = f"watch {size} bytes" if size else "break"
        yield line(f"{number:>3}  {what:<15}  {address:016x}  ", (name or "", "symbol"))


def stops_json(result: Stops) -> dict[str, Any]:
    """STOPS of the contract."""
    return {
        "stops": [
            {"number": number, "address": f"{address:#x}", "size": size, "symbol": name}
            for number, address, size, name in result.stops
        ]
    }


view(Stops, text=stops_lines, json=stops_json)
