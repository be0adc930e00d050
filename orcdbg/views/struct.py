"""How does a structure look, and how do its values?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from orcdbg.commands.struct import ShownMember, Structure, Structures
from orcdbg.views.page import Line, Piece, line
from orcdbg.views.values import STEP, ValueStyle, value_json, value_texts
from orcdbg.views.view import Width, view


def structure_lines(result: Structure, width: Width) -> Iterator[Line]:
    """As C writes it; with values, as a C initializer does."""
    yield line((f"{result.name} {{", "header"))
    for member in result.members:
        yield from _member_lines(member, result)
    yield line("}")
    if not result.is_part and result.address is None:
        yield line((f"SIZE: {result.size}", "note"))


def definition_lines(keyword: str, members: Sequence[ShownMember]) -> Iterator[Line]:
    """A structure's definition, without values and offsets."""
    size = 0  # it is the caller's to show
    yield from structure_lines(Structure(keyword, size, None, members, {}, is_part=True), None)


def _member_lines(member: ShownMember, result: Structure) -> Iterator[Line]:
    indent = " " * (4 + STEP * member.depth if result.address is None else STEP * (1 + member.depth))
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
        style = ValueStyle(result.symbols, result.in_hexadecimal)
        text = list(value_texts(member.value, style, STEP))
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


def structure_json(result: Structure) -> dict[str, Any]:
    """STRUCTURE of the contract."""
    return {
        "name": result.name,
        "size": result.size,
        "address": None if result.address is None else f"{result.address:#x}",
        "members": [member_json(member) for member in result.members if not member.opens and not member.closes],
    }


def member_json(member: ShownMember) -> dict[str, Any]:
    """MEMBER of the contract."""
    return {
        "name": member.name,
        "declaration": member.declaration,
        "offset": member.bit_offset // 8,
        "bit_offset": member.bit_offset % 8,
        "bit_size": member.bit_size or None,
        "size": member.size,
        "value": None if member.value is None else value_json(member.value),
    }


def _all_lines(result: Structures, width: Width) -> Iterator[Line]:
    for cpu, structure in result.instances:
        place = "" if structure.address is None else f"{structure.address:x}"
        yield line((place if cpu is None else f"[{cpu}]: {place}", "label"))
        yield from structure_lines(structure, width)


def _all_json(result: Structures) -> dict[str, Any]:
    return {"structures": [{"cpu": cpu, **structure_json(structure)} for cpu, structure in result.instances]}


view(Structure, text=structure_lines, json=structure_json)
view(Structures, text=_all_lines, json=_all_json)
