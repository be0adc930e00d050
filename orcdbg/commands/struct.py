"""struct: what a structure of the kernel holds, by itself or in memory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.registry import command
from orcdbg.commands.result import Result
from orcdbg.kernel.names import Names
from orcdbg.symbols.c_types import MAX_DEPTH, Compound, CTypes, Elements, Field, Scalar, ScalarKind, Value

MAX_SIZE, MAX_MEMBERS = 16 << 20, 1 << 16


@dataclass(frozen=True, slots=True)
class ShownMember:
    """A member: `declaration` as in C, `depth` how many anonymous structures it is in, `value` None where none was asked for.

    An anonymous structure is a member without a name that `opens`, its own members follow, and one that `closes`.
    """

    name: str
    type_id: int
    declaration: str
    bit_offset: int
    bit_size: int
    size: int
    depth: int = 0
    opens: bool = False
    closes: bool = False
    value: Value | None = None


@dataclass(frozen=True, slots=True)
class Structure(Result):
    """A structure, or some of its members; `symbols` names the pointers among the values."""

    name: str
    size: int
    address: int | None
    members: Sequence[ShownMember]
    symbols: Mapping[int, str]
    with_offsets: bool = False
    in_hexadecimal: bool = False
    is_part: bool = False


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="NAME[.MEMBER,...]", help="a structure or union, or some of its members")
    parser.add_argument("where", nargs="?", metavar="ADDR|SYMBOL", help="an instance in memory, whose values are shown")
    parser.add_argument("-o", "--offsets", action="store_true", help="the offset of each member; with ADDR its address")
    parser.add_argument("-x", "--hexadecimal", action="store_true", help="numbers in hexadecimal")


def _listed(types: CTypes, type_id: int, base: int, depth: int) -> Iterator[ShownMember]:
    """The members of a structure, those of anonymous ones between their braces."""
    if depth > MAX_DEPTH:
        return
    for field in types.fields(type_id):
        size = types.size(field.type_id)
        at = base + field.bit_offset
        if field.name or not types.is_compound(field.type_id):
            text = types.declaration(field.type_id, field.name)
            yield ShownMember(field.name, field.type_id, text, at, field.bit_size, size, depth)
            continue
        word = types.keyword(field.type_id).split()[0]
        yield ShownMember("", field.type_id, word, at, 0, size, depth, opens=True)
        yield from _listed(types, field.type_id, at, depth + 1)
        yield ShownMember("", field.type_id, "", at, 0, size, depth, closes=True)


def _chosen(types: CTypes, type_id: int, paths: Sequence[str]) -> Iterator[ShownMember]:
    for path in paths:
        field = types.member(type_id, path)
        text = types.declaration(field.type_id, path)
        yield ShownMember(path, field.type_id, text, field.bit_offset, field.bit_size, types.size(field.type_id))


def _bounded(members: Iterator[ShownMember]) -> list[ShownMember]:
    found: list[ShownMember] = []
    for member in members:
        found.append(member)
        if len(found) > MAX_MEMBERS:
            raise UsageError(f"more than {MAX_MEMBERS} members", "name the one that is wanted: struct NAME.MEMBER")
    return found


def _with_values(types: CTypes, members: Sequence[ShownMember], data: bytes) -> Iterator[ShownMember]:
    for member in members:
        if member.opens or member.closes or not member.name:
            yield member
            continue
        field = Field(member.name, member.type_id, member.bit_offset, member.bit_size)
        yield replace(member, value=types.read(field, data))


def _pointers(value: Value | None) -> Iterator[int]:
    if isinstance(value, Scalar) and value.kind is ScalarKind.POINTER and isinstance(value.value, int):
        yield value.value
    elif isinstance(value, Compound):
        for _, inner in value.members:
            yield from _pointers(inner)
    elif isinstance(value, Elements):
        for inner in value.elements:
            yield from _pointers(inner)


def _symbols(names: Names, members: Sequence[ShownMember]) -> dict[int, str]:
    """Pointers that are addresses of the image or of modules, by name."""
    found = {}
    for pointer in {pointer for member in members for pointer in _pointers(member.value)}:
        name = names.describe(pointer) if pointer >> 63 else None
        if name is not None:
            found[pointer] = name.partition("+0x0/")[0] if "+0x0/" in name else name
    return found


def _read(debugger: Debugger, address: int, members: Sequence[ShownMember], size: int, is_part: bool) -> bytes:
    """The structure's bytes; for some members alone, zeros stand for what is not asked for and cannot be read."""
    memory = debugger.session.memory
    if not is_part:
        return memory.read(address, size)
    end = max((-(-(m.bit_offset + (m.bit_size or 8 * m.size)) // 8) for m in members), default=0)
    try:
        return memory.read(address, end)
    except MemoryFault:
        out = bytearray(end)
        for member in members:
            first, last = member.bit_offset // 8, -(-(member.bit_offset + (member.bit_size or 8 * member.size)) // 8)
            out[first:last] = memory.read(address + first, last - first)
        return bytes(out)


@command(
    "struct",
    summary="show the members of a structure, or an instance's values",
    group="data",
    arguments=_arguments,
    aliases=("union",),
    operands=("structure", "symbol"),
    examples=(
        ("struct list_head", "its members"),
        ("struct -o task_struct", "with offsets"),
        ("struct task_struct.pid,comm init_task", "two values in memory"),
    ),
)
def struct(debugger: Debugger, arguments: argparse.Namespace) -> Structure:
    """Answers with the members of a structure and, where an address is given, their values there."""
    types = CTypes(debugger.session.types.btf)
    name, dot, rest = arguments.what.partition(".")
    paths = [path for path in rest.split(",") if path]
    if dot and not paths:
        raise UsageError(f"no member is named: {arguments.what}", "for example: struct task_struct.pid,comm ADDR")
    type_id = types.find(name)
    size = types.size(type_id)
    members = _bounded(_chosen(types, type_id, paths) if paths else _listed(types, type_id, 0, 0))
    address = None if arguments.where is None else debugger.address(arguments.where)
    symbols: Mapping[int, str] = {}
    if address is not None:
        if size > MAX_SIZE:
            raise UsageError(f"{name} is too large to read: {size} bytes")
        data = _read(debugger, address, members, size, bool(paths))
        members = list(_with_values(types, members, data))
        symbols = _symbols(debugger.session.names, members)
    return Structure(
        types.keyword(type_id), size, address, members, symbols, arguments.offsets, arguments.hexadecimal, bool(paths)
    )
