"""What were the arguments of a trace_printk(), which the kernel keeps as they are, without formatting them?

Mirrors vbin_printf() of lib/vsprintf.c: numbers of up to four bytes lie on their own boundary, longer ones on one of four
bytes, strings end in a zero.
"""

from __future__ import annotations

import re

from orcdbg.base.reading import signed
from orcdbg.subsystems.ftrace.print_formats import NotUnderstood, Value

_SPECIFIER = re.compile(r"%[-+ #0]*(\*|\d+)?(?:\.(\*|\d+))?(hh|h|ll|l|L|z|t|j|q)?([a-zA-Z%])([a-zA-Z0-9]*)")
# Pointers that the kernel keeps as pointers; it formats all others when they are given, and keeps the text.
_KEPT_POINTERS = "SsxKBfF"
_SIZES = {"hh": 1, "h": 2, "l": 8, "ll": 8, "L": 8, "q": 8, "z": 8, "t": 8, "j": 8}


def decode_binary(text: str, data: bytes) -> list[Value]:
    """The values for a format's conversions.

    Raises:
        NotUnderstood: there is not enough data, or a conversion is not known here.
    """
    values: list[Value] = []
    place = 0

    def take(size: int) -> int:
        nonlocal place
        boundary = min(size, 4)
        begin = -(-place // boundary) * boundary
        if begin + size > len(data):
            raise NotUnderstood("too few bytes")
        place = begin + size
        return int.from_bytes(data[begin:place], "little")

    def take_text() -> str:
        nonlocal place
        end = data.find(b"\0", place)
        if end < 0:
            raise NotUnderstood("a string without an end")
        found = data[place:end].decode("utf-8", "backslashreplace")
        place = end + 1
        return found

    for width, precision, length, conversion, suffix in _SPECIFIER.findall(text):
        if conversion == "%":
            continue
        values += [signed(take(4), 32) for star in (width, precision) if star == "*"]
        if conversion == "s":
            values.append(take_text())
        elif conversion == "p":
            if not suffix or suffix[0] not in _KEPT_POINTERS:
                raise NotUnderstood(f"%p{suffix}")
            values.append(take(8))
        elif conversion == "c":
            values.append(take(1))
        else:
            values.append(take(_SIZES.get(length, 4)))
    return values
