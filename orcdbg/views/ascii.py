"""How do characters look beside their numbers?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.ascii import Characters
from orcdbg.views.page import Line, line
from orcdbg.views.view import Width, view

_CONTROLS = (
    *("NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI"),
    *("DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US"),
)
_DELETE = 0x7F
_ROWS = 16


def _name(number: int) -> str:
    if number < len(_CONTROLS):
        return _CONTROLS[number]
    return {_DELETE: "DEL", 0x20: "SP"}.get(number, chr(number))


def characters_lines(result: Characters, width: Width) -> Iterator[Line]:
    """Each word with its characters; the table in columns of 16, its upper digit on top."""
    for digits, data in result.words:
        shown = "".join(
            chr(byte) if 32 <= byte < 127 else f"<{_name(byte) if byte <= _DELETE else f'{byte:02x}'}>" for byte in data
        )
        yield line((f"{digits}: ", "label"), shown)
    if result.words:
        return
    yield line(("      " + "".join(f"{column:<5x}" for column in range(8)), "header"))
    for row in range(_ROWS):
        cells = "".join(f"{_name(column * _ROWS + row):<5}" for column in range(8))
        yield line((f"   {row:x}  ", "header"), cells)


def characters_json(result: Characters) -> dict[str, Any]:
    """CHARACTERS of the contract."""
    words = [{"word": f"0x{digits}", "text": data.decode("ascii", "backslashreplace")} for digits, data in result.words]
    return {"words": words}


view(Characters, text=characters_lines, json=characters_json)
