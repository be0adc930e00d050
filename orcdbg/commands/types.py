"""How do whatis and ptype answer: which type, and what is it made of?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orcdbg.base.errors import UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.commands.scope import evaluated
from orcdbg.commands.struct import ShownMember, members_of
from orcdbg.typed.declarations import declaration, type_name
from orcdbg.typed.program import Program
from orcdbg.typed.types import (
    MAX_DEPTH,
    ArrayType,
    CompoundType,
    EnumType,
    FunctionType,
    PointerType,
    QualifiedType,
    Type,
    TypedefType,
)


@dataclass(frozen=True, slots=True)
class DescribedType(Result):
    """The type of an expression, or one that was named.

    Attributes:
        expression: what was asked.
        type: as C writes it.
        size: its bytes; 0 where it has none, such as a function.
        bit_size: of a bit-field, else 0.
        typedefs: the typedefs that it is made of, each as a declaration.
        keyword: of the structure or enumeration that it is, or leads to: `struct page`; None where that is not shown.
        members: of that structure, else empty.
        enumerators: of that enumeration, else empty.
        definition_size: bytes of that structure or enumeration.
    """

    expression: str
    type: str
    size: int
    bit_size: int
    typedefs: Sequence[str]
    keyword: str | None = None
    members: Sequence[ShownMember] = ()
    enumerators: Sequence[tuple[str, int]] = ()
    definition_size: int = 0


def described(debugger: Debugger, written: str | None, whole: bool) -> DescribedType:
    """The type that an expression has or names.

    Args:
        debugger: whom it is asked of.
        written: the expression.
        whole: whether what the type is made of is shown, through typedefs and pointers; else it is of a named type alone.
    """
    if written is None:
        raise UsageError("no type and no expression is named", "for example: ptype init_task.mm")
    found = evaluated(debugger, written, types_only=True)
    _, value = found.values[0]
    program = debugger.session.program
    size = value.size_
    if not whole and not found.is_type:
        return DescribedType(written, type_name(value.type_), size, value.bit_size_, ())

    steps = list(_made_of(program, value.type_))
    typedefs = [f"typedef {declaration(step.target, step.name)};" for step in steps if isinstance(step, TypedefType)]
    last = steps[-1]
    about = (written, type_name(value.type_), size, value.bit_size_, typedefs)
    if isinstance(last, CompoundType):
        keyword = f"{last.keyword} {last.name}".strip()
        return DescribedType(*about, keyword, members_of(last), (), last.size)
    if isinstance(last, EnumType):
        return DescribedType(*about, f"enum {last.name}".strip(), (), list(last.enumerators), last.size)
    return DescribedType(*about)


def _made_of(program: Program, type_: Type) -> Iterator[Type]:
    """A type, and those that it is made of, down to one that is made of none; as far as anybody would follow."""
    for _ in range(MAX_DEPTH):
        type_ = program.completed(type_)
        if isinstance(type_, TypedefType) and not type_.name:
            type_ = type_.target
            continue
        yield type_
        if isinstance(type_, FunctionType) or not isinstance(
            type_, PointerType | ArrayType | TypedefType | QualifiedType
        ):
            return
        type_ = type_.target
