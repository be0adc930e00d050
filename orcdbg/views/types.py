"""How does a type look, with what it is made of?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.types import DescribedType
from orcdbg.views.page import Line, fold, line
from orcdbg.views.struct import definition_lines, member_json
from orcdbg.views.view import Width, view


def described_lines(result: DescribedType, width: Width) -> Iterator[Line]:
    """`type = TYPE`, and the definitions beneath it."""
    bits = f" : {result.bit_size}" if result.bit_size else ""
    yield from fold(line(("type = ", "label"), f"{result.type}{bits}"), width, 7)
    for typedef in result.typedefs:
        yield from fold(line(typedef), width, 8)
    if result.keyword is None:
        if result.typedefs:
            yield line((f"SIZE: {result.size}", "note"))
        return
    if result.enumerators:
        yield line((f"{result.keyword} {{", "header"))
        for name, number in result.enumerators:
            yield line(f"    {name} = {number},")
        yield line("}")
    else:
        yield from definition_lines(result.keyword, result.members)
    yield line((f"SIZE: {result.definition_size}", "note"))


def described_json(result: DescribedType) -> dict[str, Any]:
    """TYPE of the contract."""
    members = [member_json(member) for member in result.members if not member.opens and not member.closes]
    return {
        "expression": result.expression,
        "type": result.type,
        "size": result.size,
        "bit_size": result.bit_size or None,
        "typedefs": list(result.typedefs),
        "definition": result.keyword,
        "members": members,
        "enumerators": [{"name": name, "value": number} for name, number in result.enumerators],
    }


view(DescribedType, text=described_lines, json=described_json)
