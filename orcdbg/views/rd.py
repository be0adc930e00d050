"""How does memory look as words?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.rd import MemoryWords
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: MemoryWords, width: Width) -> Iterator[Line]:
    step = result.width
    per_line = 1 if result.names is not None else 16 // step
    for at in range(0, len(result.data), step * per_line):
        chunk = result.data[at : at + step * per_line]
        words = [int.from_bytes(chunk[i : i + step], "little") for i in range(0, len(chunk), step)]
        text = " ".join(f"{word:0{2 * step}x}" for word in words)
        name = result.names[at // step] if result.names is not None else None
        tail = name or "".join(chr(b) if 32 <= b < 127 else "." for b in chunk)
        filled = (2 * step + 1) * per_line - 1
        yield line(f"{result.address + at:016x}:  {text:<{filled}}   ", (tail, "symbol" if name else "note"))


def _json(result: MemoryWords) -> Json:
    step, names = result.width, result.names
    words = []
    for i in range(0, len(result.data), step):
        value = int.from_bytes(result.data[i : i + step], "little")
        symbol = names[i // step] if names is not None else None
        words.append({"address": hexadecimal(result.address + i), "value": hexadecimal(value), "symbol": symbol})
    return {"width": step, "words": words}


view(MemoryWords, text=_lines, json=_json)
