"""How do the values of an expression look?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.printing import Printed, PrintedValue
from orcdbg.views.page import Line, fold, line
from orcdbg.views.reasons import message_of
from orcdbg.views.values import ValueStyle, path_text, value_json, value_texts
from orcdbg.views.view import Width, hexadecimal, view


def printed_lines(result: Printed, width: Width) -> Iterator[Line]:
    """`$1 = VALUE`, of several CPUs each under its number."""
    for value in result.values:
        for number, text in enumerate(value_lines(value)):
            indent = len(text) - len(text.lstrip()) + 4
            cpu = f"[{value.cpu}] " if value.cpu is not None and not number else ""
            yield from fold(line((cpu, "label"), text), width, indent)


def value_lines(value: PrintedValue) -> Iterator[str]:
    """A value, or why there is none."""
    label = f"${value.number} = " if value.number else ""
    if value.error is not None:
        yield f"{label}? ({message_of(value.error)})"
        return
    if value.value is None:
        yield f"{label}({value.type})"
        return
    style = ValueStyle(value.symbols, value.in_hexadecimal, value.words, value.texts, value.most)
    first, *more = value_texts(value.value, style)
    kind = f"({value.type}) " if value.is_pointer else ""
    yield f"{label}{kind}{first}"
    yield from more


def printed_json(result: Printed) -> dict[str, Any]:
    """PRINTED of the contract."""
    return {"expression": result.expression, "values": [printed_value_json(value) for value in result.values]}


def printed_value_json(value: PrintedValue) -> dict[str, Any]:
    """PRINTED VALUE of the contract."""
    words = {path_text(path): text for path, text in value.words.items()}
    error = None if value.error is None else message_of(value.error)
    return {
        "number": value.number or None,
        "cpu": value.cpu,
        "type": value.type,
        "address": hexadecimal(value.address),
        "value": None if value.value is None else value_json(value.value),
        "symbols": {f"{pointer:#x}": name for pointer, name in value.symbols.items()},
        "words": words,
        "error": error,
    }


view(Printed, text=printed_lines, json=printed_json)
