"""How do values of the members of a structure look below its address?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orcdbg.commands.members import MemberValue
from orcdbg.typed.values import Compound, Elements, Scalar, ScalarKind, Value
from orcdbg.views.page import Line, Piece
from orcdbg.views.values import value_json
from orcdbg.views.view import Json

_STEP = 2


def value_lines(
    values: Iterable[MemberValue], symbols: Mapping[int, str], in_hexadecimal: bool, indent: int = _STEP
) -> Iterator[Line]:
    """A line for each member, more for one that has members itself."""
    for name, value in values:
        first, *more = _texts(value, symbols, in_hexadecimal, indent)
        yield [Piece(" " * indent), Piece(name, "symbol"), Piece(f" = {first}")]
        for text in more:
            yield [Piece(text)]


def _texts(value: Value, symbols: Mapping[int, str], in_hexadecimal: bool, indent: int) -> Iterator[str]:
    """A value's lines; all but the first are indented."""
    if isinstance(value, Scalar):
        yield _scalar(value, symbols, in_hexadecimal)
        return
    if isinstance(value, Elements) and all(isinstance(element, Scalar) for element in value.elements):
        # Most elements of a long array are equal: registers that were never used, locks, counters.
        # `read_value` makes equal ones one object, which is found faster than an equal one.
        distinct = {id(one): one for one in value.elements}
        known = {
            each: _scalar(one, symbols, in_hexadecimal) for each, one in distinct.items() if isinstance(one, Scalar)
        }
        yield "{" + ", ".join([known[id(one)] for one in value.elements]) + "}"
        return
    parts = value.members if isinstance(value, Compound) else [("", element) for element in value.elements]
    deeper = indent + _STEP
    yield "{"
    for name, part in parts:
        first, *more = _texts(part, symbols, in_hexadecimal, deeper)
        yield " " * deeper + (f"{name} = {first}" if name else first)
        yield from more
    yield " " * indent + "}"


def _scalar(found: Scalar, symbols: Mapping[int, str], in_hexadecimal: bool) -> str:
    value = found.value
    if value is None:
        return "?"
    if found.kind is ScalarKind.TEXT:
        return f'"{value}"'
    if isinstance(value, str):
        return value
    if found.kind is ScalarKind.POINTER and isinstance(value, int):
        name = symbols.get(value)
        return f"{value:#x}" + (f" <{name}>" if name else "")
    if found.kind is ScalarKind.BOOL:
        return "true" if value else "false"
    return f"{value:#x}" if in_hexadecimal and isinstance(value, int) else str(value)


def values_json(values: Iterable[MemberValue]) -> Json:
    """The values by the names of their members: numbers and text as they are, pointers as addresses."""
    return {name: value_json(value) for name, value in values}
