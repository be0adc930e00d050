"""How does a structure look, and how do its values?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from orcdbg.commands.struct import ShownMember, Structure
from orcdbg.typed.values import Compound, Elements, Scalar, ScalarKind, Value
from orcdbg.views.page import Line, Piece, line
from orcdbg.views.view import Width, view

REPEATS = 8  # equal neighbours from which on they are counted instead of shown
_STEP = 2


def structure_lines(result: Structure, width: Width) -> Iterator[Line]:
    """As C writes it; with values, as a C initializer does."""
    yield line((f"{result.name} {{", "header"))
    for member in result.members:
        yield from _member_lines(member, result)
    yield line("}")
    if not result.is_part and result.address is None:
        yield line((f"SIZE: {result.size}", "note"))


def _member_lines(member: ShownMember, result: Structure) -> Iterator[Line]:
    indent = " " * (4 + _STEP * member.depth if result.address is None else _STEP * (1 + member.depth))
    if member.closes:
        if result.address is None:
            yield line(f"{' ' * len(_place(member, result))}{indent}}};")
        return
    place = _place(member, result)
    if member.opens:
        if result.address is None:
            yield line((place, "address"), f"{indent}{member.declaration} {{")
        return
    if result.address is None:
        bits = f" : {member.bit_size}" if member.bit_size else ""
        yield line((place, "address"), f"{indent}{member.declaration}{bits};")
        return
    if member.value is not None:
        text = list(_texts(member.value, result.symbols, result.in_hexadecimal, _STEP))
        yield [Piece(place, "address"), Piece(f"  {member.name}", "symbol"), Piece(f" = {text[0]}")]
        for more in text[1:]:
            yield line(f"{' ' * len(place)}{more}")


def _place(member: ShownMember, result: Structure) -> str:
    """The column of offsets, or of addresses."""
    if not result.with_offsets:
        return ""
    if result.address is not None:
        return f"[{result.address + member.bit_offset // 8:016x}]"
    bits = f":{member.bit_offset % 8}" if member.bit_size else ""
    return f"{f'[{member.bit_offset // 8}{bits}]':>9}"


def _scalar(found: Scalar, symbols: Mapping[int, str], in_hexadecimal: bool) -> str:
    value = found.value
    if found.kind is ScalarKind.TEXT:
        return f'"{value}"'
    if value is None:
        return "?"
    if isinstance(value, str):
        return value
    if found.kind is ScalarKind.POINTER and isinstance(value, int):
        name = symbols.get(value)
        return f"{value:#x}" + (f" <{name}>" if name else "")
    if found.kind is ScalarKind.BOOL:
        return "true" if value else "false"
    return f"{value:#x}" if in_hexadecimal and isinstance(value, int) else str(value)


def _texts(value: Value, symbols: Mapping[int, str], in_hexadecimal: bool, indent: int) -> Iterator[str]:
    """A value's lines; all but the first are indented."""
    if isinstance(value, Scalar):
        yield _scalar(value, symbols, in_hexadecimal)
        return
    deeper = indent + _STEP
    if isinstance(value, Elements):
        if all(isinstance(element, Scalar) for element in value.elements):
            words = [_scalar(one, symbols, in_hexadecimal) for one in value.elements if isinstance(one, Scalar)]
            yield "{" + ", ".join(_collapsed(words)) + "}"
            return
        parts = [("", element) for element in value.elements]
    else:
        parts = list(value.members)
    yield "{"
    for name, part in parts:
        first, *more = _texts(part, symbols, in_hexadecimal, deeper)
        yield " " * deeper + (f"{name} = {first}" if name else first)
        yield from more
    yield " " * indent + "}"


def _collapsed(words: list[str]) -> Iterator[str]:
    for word, equal in groupby(words):
        count = len(list(equal))
        if count >= REPEATS:
            yield f"{word} <repeats {count} times>"
        else:
            yield from [word] * count


def structure_json(result: Structure) -> dict[str, Any]:
    """STRUCTURE of the contract."""
    return {
        "name": result.name,
        "size": result.size,
        "address": None if result.address is None else f"{result.address:#x}",
        "members": [_member_json(member) for member in result.members if not member.opens and not member.closes],
    }


def _member_json(member: ShownMember) -> dict[str, Any]:
    return {
        "name": member.name,
        "declaration": member.declaration,
        "offset": member.bit_offset // 8,
        "bit_offset": member.bit_offset % 8,
        "bit_size": member.bit_size or None,
        "size": member.size,
        "value": None if member.value is None else _value_json(member.value),
    }


def _value_json(value: Value) -> Any:
    if isinstance(value, Compound):
        return {name: _value_json(inner) for name, inner in value.members}
    if isinstance(value, Elements):
        return [_value_json(inner) for inner in value.elements]
    if value.kind is ScalarKind.POINTER and isinstance(value.value, int):
        return f"{value.value:#x}"
    return bool(value.value) if value.kind is ScalarKind.BOOL else value.value


view(Structure, text=structure_lines, json=structure_json)
