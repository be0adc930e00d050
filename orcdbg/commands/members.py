"""Which members of the structures in a list or tree are shown, and what are their values?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.walks import Budget
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import CompoundType, Type, resolved
from orcdbg.typed.values import Compound, Elements, Scalar, ScalarKind, Value

MemberValue = tuple[str, Value]


@dataclass(frozen=True, slots=True)
class WantedMembers:
    """A structure, and the dotted paths of those of its members that are shown; all of it where no path is named."""

    type: Type
    paths: tuple[str, ...]

    def of(self, program: Program, address: int) -> tuple[MemberValue, ...]:
        """The values of the structure at an address.

        Raises:
            OrcdbgError: they cannot be read, or there is no such member.
        """
        inside = program.object(self.type, address)
        if not self.paths:
            whole = inside.value_()
            return whole.members if isinstance(whole, Compound) else (("", whole),)
        return tuple((path, inside.member_(path).value_()) for path in self.paths)


def wanted_members(program: Program, words: Sequence[str]) -> list[WantedMembers]:
    """What `STRUCT` or `STRUCT.MEMBER,MEMBER` asks for, each word by itself.

    Raises:
        NotFound: there is no such structure or member.
        UsageError: it is no structure.
    """
    found = []
    for word in words:
        name, _, rest = word.partition(".")
        type_ = program.type(name)
        plain = program.completed(resolved(type_))
        if not isinstance(plain, CompoundType):
            raise UsageError(f"{name} is no structure")
        paths = tuple(path for path in rest.split(",") if path)
        for path in paths:
            plain.member(path)
        found.append(WantedMembers(type_, paths))
    return found


def values_at(
    program: Program, wanted: Sequence[WantedMembers], address: int, budget: Budget
) -> tuple[MemberValue, ...]:
    """The values that are asked for of the structure at an address; for those that cannot be read the budget has a problem."""
    found: list[MemberValue] = []
    for one in wanted:
        try:
            found += one.of(program, address)
        except OrcdbgError as error:
            budget.note_error("members", address, error)
    return tuple(found)


def _pointers(value: Value) -> Iterator[int]:
    if isinstance(value, Scalar):
        if value.kind is ScalarKind.POINTER and isinstance(value.value, int):
            yield value.value
        return
    parts = value.elements if isinstance(value, Elements) else [inner for _, inner in value.members]
    for part in parts:
        yield from _pointers(part)


def pointer_names(debugger: Debugger, values: Sequence[MemberValue]) -> Mapping[int, str]:
    """Names of the pointers among some values."""
    return names_of(debugger, (pointer for _, value in values for pointer in _pointers(value)))


def place(debugger: Debugger, text: str) -> int:
    """The address that a word means: as `Debugger.address`, or `VARIABLE.MEMBER`.

    Raises:
        NotFound: it is neither.
    """
    try:
        return debugger.address(text)
    except NotFound:
        name, dot, path = text.partition(".")
        if not dot:
            raise
        found: Object = debugger.session.variable(name).member_(path)
        return found.address_ or 0


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
