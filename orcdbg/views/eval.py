"""How does a number look in each base?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.eval import EvaluatedNumber
from orcdbg.views.page import Line, fold, line
from orcdbg.views.view import Width, view

_UNITS = ((40, "TB"), (30, "GB"), (20, "MB"), (10, "KB"))


def evaluated_lines(result: EvaluatedNumber, width: Width) -> Iterator[Line]:
    """A base a line, as crash writes them."""
    unit = next(
        (f"  ({result.low >> bits}{name})" for bits, name in _UNITS if result.low and not result.low % (1 << bits)), ""
    )
    yield line(("hexadecimal: ", "label"), f"{result.low:x}{unit}")
    negative = f"  ({result.signed})" if result.signed < 0 else ""
    yield line(("    decimal: ", "label"), f"{result.low}{negative}")
    yield line(("      octal: ", "label"), f"{result.low:o}")
    yield line(("     binary: ", "label"), f"{result.low:064b}")
    if result.with_bits:
        bits = " ".join(str(bit) for bit in result.bits) or "none"
        yield from fold(line(("   bits set: ", "label"), bits), width, 13)


def evaluated_json(result: EvaluatedNumber) -> dict[str, Any]:
    """NUMBER of the contract."""
    return {"hexadecimal": f"{result.low:#x}", "decimal": result.low, "signed": result.signed, "bits": result.bits}


view(EvaluatedNumber, text=evaluated_lines, json=evaluated_json)
