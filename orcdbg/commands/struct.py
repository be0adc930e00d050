"""struct: what a structure of the kernel holds, by itself or in memory."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orcdbg.base.errors import MemoryFault, NotFound, OrcdbgError, UsageError
from orcdbg.base.sizes import U64
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import is_in_symbol
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.result import Result
from orcdbg.target.session import Session
from orcdbg.typed.declarations import declaration
from orcdbg.typed.objects import InMemory
from orcdbg.typed.program import Program
from orcdbg.typed.types import MAX_DEPTH, CompoundType, PointerType, Type, resolved
from orcdbg.typed.values import Value, pointers_in, read_value

MAX_SIZE, MAX_MEMBERS = 16 << 20, 1 << 16
MAX_INSTANCES = 1 << 16
_PATH = re.compile(r"\w+(\[\d{1,9}\])*(\.\w+(\[\d{1,9}\])*)*")
_STEP = re.compile(r"\w*[A-Za-z_]\w*|\[\d+\]")
_OF_CPUS = re.compile(r"([A-Za-z_][\w.]*):(a|[\d,-]*)")


@dataclass(frozen=True, slots=True)
class ShownMember:
    """A member: `declaration` as in C, `depth` how many anonymous structures it is in, `value` None where none was asked for.

    An anonymous structure is a member without a name that `opens`, its own members follow, and one that `closes`.
    """

    name: str
    type: Type
    declaration: str
    bit_offset: int
    bit_size: int
    size: int
    depth: int = 0
    opens: bool = False
    closes: bool = False
    value: Value | None = None

    @property
    def bytes(self) -> tuple[int, int]:
        """[first, end) of the structure's bytes that it is in."""
        bits = self.bit_size or 8 * self.size
        return self.bit_offset // 8, -(-(self.bit_offset + bits) // 8)


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


@dataclass(frozen=True, slots=True)
class Structures(Result):
    """Several of one structure: neighbours in memory, or a per-CPU variable's, each with its CPU."""

    instances: Sequence[tuple[int | None, Structure]]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="NAME[.MEMBER,...]", help="a structure or union, or some of its members")
    parser.add_argument(
        "where",
        nargs="?",
        metavar="ADDR|SYMBOL|VARIABLE:CPUS",
        help="an instance in memory, whose values are shown; of a per-CPU variable those of CPUs, a for all",
    )
    parser.add_argument("count", nargs="?", type=_count, default=1, help="so many of an array, one behind the other")
    parser.add_argument("-o", "--offsets", action="store_true", help="the offset of each member; with ADDR its address")
    radix = parser.add_mutually_exclusive_group()
    radix.add_argument("-x", "--hexadecimal", action="store_true", help="numbers in hexadecimal")
    radix.add_argument("-d", "--decimal", action="store_true", help="numbers in decimal, after `set radix 16` too")
    parser.add_argument(
        "-l", "--embedded", metavar="OFFSET|STRUCT.MEMBER", help="ADDR is that of what lies there in the structure"
    )


def _count(text: str) -> int:
    return int(text, 0)


def _listed(compound: CompoundType, base: int, depth: int) -> Iterator[ShownMember]:
    """The members of a structure, those of anonymous ones between their braces."""
    if depth > MAX_DEPTH:
        return
    for member in compound.members:
        size = member.type.size
        at = base + member.bit_offset
        inner = resolved(member.type)
        if member.name or not isinstance(inner, CompoundType):
            text = declaration(member.type, member.name)
            yield ShownMember(member.name, member.type, text, at, member.bit_size, size, depth)
            continue
        yield ShownMember("", member.type, inner.keyword, at, 0, size, depth, opens=True)
        yield from _listed(inner, at, depth + 1)
        yield ShownMember("", member.type, "", at, 0, size, depth, closes=True)


def _chosen(program: Program, compound: CompoundType, paths: Sequence[str]) -> Iterator[ShownMember]:
    for path in paths:
        if "[" in path:
            yield _element(program, compound, path)
            continue
        member = compound.member(path)
        text = declaration(member.type, path)
        yield ShownMember(path, member.type, text, member.bit_offset, member.bit_size, member.type.size)


def _element(program: Program, compound: CompoundType, path: str) -> ShownMember:
    """The member at a path with numbers of elements, `cpus_mask.bits[0]`; no pointer is followed on the way."""
    if not _PATH.fullmatch(path):
        raise UsageError(f"not a member: {path}", "for example: struct task_struct.cpus_mask.bits[0] ADDR")
    found = program.object(compound, 0)
    for word in _STEP.findall(path):
        if isinstance(found.plain_type_, PointerType):
            raise UsageError(
                f"{path} leads through a pointer", f"`p ((struct {compound.name} *)ADDR)->{path}` follows it"
            )
        try:
            found = found[int(word[1:-1])] if word.startswith("[") else found.member_(word)
        except IndexError as error:
            raise NotFound("element", path) from error
    place = found.place_
    assert isinstance(place, InMemory)  # of an object at an address no part is anywhere else
    bits = 8 * place.address + place.bit_offset
    return ShownMember(path, found.type_, declaration(found.type_, path), bits, found.bit_size_, found.size_)


def _bounded(members: Iterator[ShownMember]) -> list[ShownMember]:
    found: list[ShownMember] = []
    for member in members:
        found.append(member)
        if len(found) > MAX_MEMBERS:
            raise UsageError(f"more than {MAX_MEMBERS} members", "name the one that is wanted: struct NAME.MEMBER")
    return found


def _with_values(members: Sequence[ShownMember], data: bytes) -> Iterator[ShownMember]:
    for member in members:
        if member.opens or member.closes or not member.name:
            yield member
            continue
        yield replace(member, value=read_value(member.type, data, member.bit_offset, member.bit_size))


def named_pointers(session: Session, pointers: Iterable[int]) -> dict[int, str]:
    """The names of those pointers that are addresses of the image or of modules."""
    found = {}
    for pointer in set(pointers):
        name = session.names.describe(pointer) if is_in_symbol(session, pointer) else None
        if name is not None:
            found[pointer] = name.partition("+0x0/")[0] if "+0x0/" in name else name
    return found


def _read(debugger: Debugger, address: int, members: Sequence[ShownMember], size: int, is_part: bool) -> bytes:
    """The structure's bytes; for some members alone, zeros stand for what is not asked for and cannot be read."""
    memory = debugger.session.memory
    if not is_part:
        return memory.read(address, size)
    end = max((member.bytes[1] for member in members), default=0)
    try:
        return memory.read(address, end)
    except MemoryFault:
        out = bytearray(end)
        for member in members:
            first, last = member.bytes
            out[first:last] = memory.read(address + first, last - first)
        return bytes(out)


def members_of(compound: CompoundType) -> list[ShownMember]:
    """All members of a structure as `struct` lists them, without values.

    Raises:
        UsageError: there are more than anybody would read.
    """
    return _bounded(_listed(compound, 0, 0))


def named_structure(program: Program, name: str) -> CompoundType:
    """The structure, union, or typedef of one, of that name.

    Raises:
        NotFound: there is none.
    """
    for keyword in ("struct", "union", ""):
        found = program.catalog.find(keyword, name)
        plain = None if found is None else program.completed(resolved(found))
        if isinstance(plain, CompoundType):
            return plain
    raise NotFound("structure", name, lambda: program.catalog.hint_for(name))


@command(
    "struct",
    summary="show the members of a structure, or an instance's values",
    group="data",
    effect=Effect.NONE,
    arguments=_arguments,
    aliases=("union",),
    operands=("structure", "symbol"),
    examples=(
        ("struct list_head", "its members"),
        ("struct -o task_struct", "with offsets"),
        ("struct task_struct.pid,comm init_task", "two values in memory"),
        ("struct rq.nr_running runqueues:a", "of a per-CPU variable, for each CPU"),
        ("struct task_struct.comm -l task_struct.tasks ffff888003d3a4c0", "around a list_head"),
    ),
)
def struct(debugger: Debugger, arguments: argparse.Namespace) -> Structure | Structures:
    """Answers with the members of a structure and, where an address is given, their values there."""
    name, dot, rest = arguments.what.partition(".")
    paths = [path for path in rest.split(",") if path]
    if dot and not paths:
        raise UsageError(f"no member is named: {arguments.what}", "for example: struct task_struct.pid,comm ADDR")
    compound = named_structure(debugger.session.program, name)
    members = _bounded(_chosen(debugger.session.program, compound, paths) if paths else _listed(compound, 0, 0))
    keyword = f"{compound.keyword} {compound.name}".strip()
    in_hexadecimal = arguments.hexadecimal or (debugger.in_hexadecimal and not arguments.decimal)
    layout = Structure(keyword, compound.size, None, members, {}, arguments.offsets, in_hexadecimal, bool(paths))
    if arguments.where is None:
        return layout
    places = _places(debugger, arguments, compound.size)
    if compound.size * len(places) > MAX_SIZE:
        raise UsageError(f"{name} is too large to read: {compound.size * len(places)} bytes")
    found = [(cpu, _instance(debugger, layout, address)) for cpu, address in places]
    return found[0][1] if len(found) == 1 and found[0][0] is None else Structures(found)


def _places(debugger: Debugger, arguments: argparse.Namespace, size: int) -> list[tuple[int | None, int]]:
    """The addresses that the words name, each with its CPU where it is a per-CPU variable's."""
    count = arguments.count
    if not 0 < count <= MAX_INSTANCES:
        raise UsageError(f"cannot show {count} at once", f"1 to {MAX_INSTANCES}")
    first: list[tuple[int | None, int]]
    match = _OF_CPUS.fullmatch(arguments.where)
    if match is not None and (not match[2] or match[2][0] in "a0123456789"):
        from orcdbg.commands.scope import evaluated  # a plain layout needs no expressions

        first = [(cpu, int(pointer)) for cpu, pointer in evaluated(debugger, f"&{arguments.where}").values]
    else:
        first = [(None, debugger.address(arguments.where))]
    offset = 0 if arguments.embedded is None else _offset(debugger, arguments.embedded)
    return [(cpu, address - offset + number * size & U64) for cpu, address in first for number in range(count)]


def _offset(debugger: Debugger, text: str) -> int:
    from orcdbg.commands.members import offset_in

    return offset_in(debugger.session.program, text)[0]


def _instance(debugger: Debugger, layout: Structure, address: int) -> Structure:
    """The structure at an address."""
    data = _read(debugger, address, layout.members, layout.size, layout.is_part)
    members = list(_with_values(layout.members, data))
    values = (member.value for member in members if member.value is not None)
    pointers = (pointer for value in values for pointer in pointers_in(value))
    return replace(layout, address=address, members=members, symbols=named_pointers(debugger.session, pointers))


def is_structure(debugger: Debugger, word: str) -> bool:
    """Whether a word is a structure, union or typedef of one, or some of its members, as a line of crash may begin."""
    name, _, members = word.partition(".")
    if not name.isidentifier() or not re.fullmatch(r"[\w.,\[\]]*", members):
        return False
    try:
        named_structure(debugger.session.program, name)
    except OrcdbgError:
        return False  # also where this kernel's types cannot be read
    return True
