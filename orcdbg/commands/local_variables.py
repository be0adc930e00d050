"""What are the variables and arguments of frames, with their values as they are shown?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reasons import WhyNoValue
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.function_names import names_of
from orcdbg.commands.result import Result
from orcdbg.expressions.words import Path, Words, parts_of
from orcdbg.typed.declarations import declaration
from orcdbg.typed.objects import Absent, ValueUnavailable
from orcdbg.typed.values import Value, pointers_in
from orcdbg.unwind.frame import Frame, FrameKind, StackTrace

if TYPE_CHECKING:
    from orcdbg.variables.local_variables import StackVariables, Variable

# A larger one is shown by its address.
MAX_SHOWN = 4096


@dataclass(frozen=True, slots=True)
class ShownVariable:
    """A variable of a frame.

    Attributes:
        name: its name.
        declaration: as C has it.
        is_argument: whether it is the function's argument.
        function: the function that it is of.
        is_inlined: whether that is inlined in the frame's.
        value: None where it is not there, or too large to be shown.
        address: where it is in memory, None where it is not.
        why: why there is no value, None where there is one.
        code: the kind of that reason.
        is_sure: False where the frame, or one that the value was taken from, is in doubt.
        words: what parts of the value say besides their numbers, as the text behind a `char *`.
    """

    name: str
    declaration: str
    is_argument: bool
    function: str
    is_inlined: bool
    value: Value | None
    address: int | None
    why: str | None
    code: WhyNoValue | None
    is_sure: bool
    words: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FrameVariables(Result):
    """The variables of a frame.

    Attributes:
        frame: the frame.
        variables: the innermost function's first; empty where there are none.
        symbols: names of the pointers among the values.
        problem: why nothing is known of them, or None.
        is_part: whether only some were asked for.
    """

    frame: Frame
    variables: Sequence[ShownVariable]
    symbols: Mapping[int, str]
    problem: str | None = None
    is_part: bool = False


def variables_of(debugger: Debugger, trace: StackTrace, index: int) -> FrameVariables:
    """Those of one frame of a stack."""
    return _of_frame(debugger, debugger.session.local_variables.of(trace), trace.frames[index])


def variables_in(debugger: Debugger, trace: StackTrace) -> Iterator[FrameVariables]:
    """Those of each kernel frame of a stack."""
    found = debugger.session.local_variables.of(trace)
    return (_of_frame(debugger, found, frame) for frame in trace.frames if frame.kind is not FrameKind.USER)


def _of_frame(debugger: Debugger, found: StackVariables, frame: Frame) -> FrameVariables:
    try:
        if not found.is_described(frame.index):
            return FrameVariables(frame, (), {}, "no debugging information describes this code")
        words = Words(debugger.session.program)
        shown = [_shown(variable, words) for variable in found.of_frame(frame.index)]
    except OrcdbgError as error:
        return FrameVariables(frame, (), {}, error.message)
    pointers = (pointer for each in shown if each.value is not None for pointer in pointers_in(each.value))
    return FrameVariables(frame, shown, names_of(debugger, pointers))


def _shown(variable: Variable, words: Words) -> ShownVariable:
    value, why, code = _value(variable)
    parts = () if value is None else parts_of(variable.object, value, name=variable.name, plain_numbers=False)
    return ShownVariable(
        variable.name,
        _declaration(variable),
        variable.is_argument,
        variable.function,
        variable.is_inlined,
        value,
        variable.object.address_,
        why,
        code,
        variable.is_sure,
        {part.path: text for part in parts if (text := words.of(part)) is not None},
    )


def _declaration(variable: Variable) -> str:
    try:
        return declaration(variable.object.type_, variable.name)
    except OrcdbgError:
        return variable.name


def _value(variable: Variable) -> tuple[Value | None, str | None, WhyNoValue | None]:
    """The value, or why it is not shown, in words and by its kind."""
    place = variable.object.place_
    if isinstance(place, Absent):
        return None, place.why, place.code
    try:
        size = variable.object.size_
        if size > MAX_SHOWN:
            return None, f"{size} bytes, too many to show here", WhyNoValue.TOO_LARGE
        return variable.object.value_(), None, None
    except ValueUnavailable as error:
        return None, error.message, error.code
    except MemoryFault as error:
        return None, error.message, WhyNoValue.NO_MEMORY
    except OrcdbgError as error:
        return None, error.message, WhyNoValue.NOT_UNDERSTOOD
