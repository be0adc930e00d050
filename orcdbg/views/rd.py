"""How does memory look as words?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.rd import MemoryFile, MemoryWords, Radix, StringInMemory
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, hexadecimal, view

# Columns of a decimal number by the bytes of its word, with a sign.
_DECIMAL_COLUMNS = {1: 4, 2: 6, 4: 11, 8: 20}


def word_lines(result: MemoryWords, width: Width) -> Iterator[Line]:
    """Words, and beside them their names or their text."""
    step = result.width
    per_line = 1 if result.names is not None else 16 // step
    columns = 2 * step if result.radix is Radix.HEX else _DECIMAL_COLUMNS[step]
    filled = (columns + 1) * per_line - 1
    for at in range(0, len(result.data), step * per_line):
        chunk = result.data[at : at + step * per_line]
        first = at // step
        values = [result.value(first + i) for i in range(len(chunk) // step)]
        is_hex = result.radix is Radix.HEX
        text = " ".join(f"{value:0{columns}x}" if is_hex else f"{value:>{columns}}" for value in values)
        name = result.names[first] if result.names is not None else None
        tail = name or ("".join(chr(b) if 32 <= b < 127 else "." for b in chunk) if result.is_with_text else "")
        yield line(f"{result.address + at:016x}:  {text:<{filled}}   ", (tail, "symbol" if name else "note"))


def words_json(result: MemoryWords) -> Json:
    """WORDS of the contract."""
    step, names = result.width, result.names
    words = []
    for number in range(len(result.data) // step):
        value = result.value(number)
        words.append(
            {
                "address": hexadecimal(result.address + number * step),
                "value": hexadecimal(value & (1 << 8 * step) - 1),
                "symbol": names[number] if names is not None else None,
            }
        )
    return {"width": step, "words": words}


def _text_lines(result: StringInMemory, width: Width) -> Iterator[Line]:
    at = result.address
    for piece in result.data.split(b"\n"):
        yield line(f"{at:016x}:  ", piece.decode("ascii", "backslashreplace"))
        at += len(piece) + 1
    if result.is_cut:
        yield line(("it goes on: more of it is not shown, or not in the snapshot", "reason"))


def _text_json(result: StringInMemory) -> Json:
    return {
        "address": hexadecimal(result.address),
        "text": result.data.decode("ascii", "backslashreplace"),
        "size": len(result.data),
        "cut": result.is_cut,
    }


def _file_lines(result: MemoryFile, width: Width) -> Iterator[Line]:
    yield line(f"{result.size} bytes from {result.address:016x} in {result.path}")


def _file_json(result: MemoryFile) -> Json:
    return {"address": hexadecimal(result.address), "size": result.size, "path": result.path}


view(MemoryWords, text=word_lines, json=words_json)
view(StringInMemory, text=_text_lines, json=_text_json)
view(MemoryFile, text=_file_lines, json=_file_json)
