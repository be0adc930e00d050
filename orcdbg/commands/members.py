"""Which members of the structures in a list or tree are shown, and what are their values?"""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.reading import read_memory_pieces
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget, WalkOutcome, WalkProblem
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import CompoundType, Type, resolved
from orcdbg.typed.values import Compound, Value, pointers_in, read_value

MemberValue = tuple[str, Value]


# Structures whose bytes are in memory at once while they are read.
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class WantedMember:
    """A member that is shown of each structure: its name, with the bits that it has in the structure; or all of it."""

    name: str
    type: Type
    bit_offset: int
    bit_size: int

    @property
    def first(self) -> int:
        """Its first byte."""
        return self.bit_offset // 8

    @property
    def size(self) -> int:
        """Bytes that hold it."""
        bits = self.bit_size or 8 * self.type.size
        return -(-(self.bit_offset % 8 + bits) // 8)


def add_member_arguments(parser: argparse.ArgumentParser, noun: str) -> None:
    """The options that say how each structure of many is shown; `noun` is what one is called."""
    for short, long, what in (
        ("-s", "--struct", f"show each {noun} as this structure"),
        ("-S", "--hexadecimal-struct", "the same in hexadecimal"),
    ):
        parser.add_argument(short, long, action="append", default=[], metavar="STRUCT[.MEMBER,...]", help=what)
    parser.add_argument("-x", "--hexadecimal", action="store_true", help="numbers in hexadecimal")


def wanted_members(program: Program, words: Sequence[str]) -> list[WantedMember]:
    """What `STRUCT` or `STRUCT.MEMBER,MEMBER` asks for; a structure alone stands for all of its members.

    Raises:
        NotFound: there is no such structure or member.
        UsageError: it is no structure.
    """
    found = []
    for word in words:
        name, _, rest = word.partition(".")
        plain = program.completed(resolved(program.type(name)))
        if not isinstance(plain, CompoundType):
            raise UsageError(f"{name} is no structure")
        found += members_at(program, plain, [path for path in rest.split(",") if path])
    return found


def members_at(program: Program, structure: CompoundType, paths: Sequence[str]) -> list[WantedMember]:
    """The members at dotted paths; all of the structure where no path is named."""
    if not paths:
        return [WantedMember("", structure, 0, 0)]
    members = [(path, structure.member(path)) for path in paths]
    return [
        WantedMember(path, program.completed(resolved(member.type)), member.bit_offset, member.bit_size)
        for path, member in members
    ]


def values_at(
    program: Program, wanted: Sequence[WantedMember], addresses: Sequence[int], budget: Budget
) -> list[tuple[MemberValue, ...]]:
    """The values that are asked for of the structures at some addresses, for each address.

    They are read together: one by one, those of a list of 100,000 would take seconds. What cannot be read is left out, and
    the budget has a problem.
    """
    found: list[list[MemberValue]] = [[] for _ in addresses]
    for start in range(0, len(addresses), _BATCH):
        batch = addresses[start : start + _BATCH]
        for member in wanted:
            cost = member.size * len(batch)
            if cost > budget.size_left:
                budget.note(WalkProblem("bytes of members", WalkOutcome.SPENT, batch[0], budget.size))
                return [tuple(values) for values in found]
            budget.size_left -= cost
            _add_values(program, member, batch, found[start : start + _BATCH], budget)
    return [tuple(values) for values in found]


def _add_values(
    program: Program, member: WantedMember, addresses: Sequence[int], found: Sequence[list[MemberValue]], budget: Budget
) -> None:
    """Adds a member of each structure to what is known of it."""
    places = [address + member.first & U64 for address in addresses]
    pieces = read_memory_pieces(program.memory, places, [member.size] * len(places))
    for place, piece, values in zip(places, pieces, found, strict=True):
        try:
            data = program.memory.read(place, member.size) if piece is None else piece
            value = read_value(member.type, data, member.bit_offset % 8, member.bit_size)
        except OrcdbgError as error:
            budget.note_error(f"member {member.name}" if member.name else "a structure", place, error)
            continue
        values += value.members if not member.name and isinstance(value, Compound) else [(member.name, value)]


def pointer_names(debugger: Debugger, values: Sequence[MemberValue]) -> Mapping[int, str]:
    """Names of the pointers among some values."""
    return names_of(debugger, (pointer for _, value in values for pointer in pointers_in(value)))


_PLAIN_WORD = re.compile(r"[\w:.+]+")
_VARIABLE_MEMBER = re.compile(r"[A-Za-z_]\w*\.[\w.]+")


def place(debugger: Debugger, text: str) -> int:
    """The address that a word means: as `Debugger.address`; `VARIABLE.MEMBER`, where that is; or an expression.

    An expression means what it points to, or where it is if it is a structure, as in crash.

    Raises:
        NotFound: it is none of them.
        UsageError: it is an expression that means nothing.
        OrcdbgError: memory that the expression needs cannot be read.
    """
    try:
        return debugger.address(text)
    except NotFound:
        if _VARIABLE_MEMBER.fullmatch(text):
            name, _, path = text.partition(".")
            with contextlib.suppress(NotFound):
                member: Object = debugger.session.variable(name).member_(path)
                return member.address_ or 0
        from orcdbg.commands.scope import address_of, one_value  # a name needs none of it

        try:
            return address_of(one_value(debugger, text))
        except NotFound as error:
            if _PLAIN_WORD.fullmatch(text) and "." not in text:
                refusal = error
                raise NotFound("symbol or address", text, lambda: refusal.hint) from error
            raise


def offset_in(program: Program, text: str) -> tuple[int, Object | None]:
    """The offset that a word means: a number, or `STRUCT.MEMBER`, with that member of a structure at address 0."""
    name, dot, path = text.partition(".")
    if dot:
        member = program.object(program.type(name), 0).member_(path)
        return member.address_ or 0, member
    try:
        return int(text, 0), None
    except ValueError as error:
        raise UsageError(f"not an offset: {text}", "for example: 16, or task_struct.tasks") from error
