"""How do p, px and pd answer: which values, numbered, and what does each part of them say?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orcdbg.base.errors import OrcdbgError, UsageError
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.result import Result
from orcdbg.commands.scope import SelectedScope
from orcdbg.commands.struct import named_pointers
from orcdbg.expressions.evaluation import Evaluated, evaluate
from orcdbg.expressions.words import FORMATS, Part, Path, Words, formatted, parts_of
from orcdbg.typed.declarations import type_name
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import FunctionType, IncompleteType, PointerType, VoidType
from orcdbg.typed.values import Scalar, ScalarKind, Value


@dataclass(frozen=True, slots=True)
class PrintedValue:
    """A value of an expression.

    Attributes:
        number: of the value's place in the history, `$1`.
        cpu: whose instance it is, None where no CPU was asked for.
        type: as C writes it.
        address: where it is in memory, or None.
        value: what it is; None where `error` says why it cannot be read.
        is_pointer: whether it is a pointer, whose type is shown with it.
        symbols: names of the pointers in it.
        words: what parts of it say besides their numbers.
        texts: parts in the format that was asked for.
        error: why it cannot be read.
        in_hexadecimal: whether numbers are, where no format was asked for.
        most: elements of an array that are shown; None for all.
    """

    number: int
    cpu: int | None
    type: str
    address: int | None
    value: Value | None
    is_pointer: bool = False
    symbols: Mapping[int, str] = field(default_factory=dict)
    words: Mapping[Path, str] = field(default_factory=dict)
    texts: Mapping[Path, str] = field(default_factory=dict)
    error: OrcdbgError | None = None
    in_hexadecimal: bool = False
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Printed(Result):
    """The values of an expression: one, or one for each CPU."""

    expression: str
    values: Sequence[PrintedValue]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of p, px and pd."""
    parser.add_argument("-x", dest="format", action="store_const", const="x", help="numbers in hexadecimal, as p/x")
    parser.add_argument("-d", dest="format", action="store_const", const="d", help="numbers in decimal, as p/d")
    parser.add_argument("-o", dest="format", action="store_const", const="o", help="numbers in octal, as p/o")
    parser.add_argument("-u", "--user", action="store_true", help="what is read is the selected task's user memory")
    parser.add_argument(
        "expression", nargs="?", metavar="EXPRESSION", help="a C expression; VARIABLE:CPUS of per-CPU variables"
    )


def printed(debugger: Debugger, arguments: argparse.Namespace, letter: str = "") -> Printed:
    """The values of the expression of a line.

    Args:
        debugger: whom it is asked of.
        arguments: the line's words.
        letter: the format where the line names none.
    """
    written = arguments.expression or "$"
    wanted = checked_format(arguments.format or letter)
    program = debugger.session.program
    if arguments.user:
        program = program.over(debugger.session.kernel_memory.user_memory(debugger.task))
    found = evaluate(program, written, SelectedScope(debugger))
    if found.is_type:
        raise UsageError(f"a type, not a value: {written}", f"`ptype {written}` shows it")
    return Printed(written, values_of(debugger, found, wanted, program, numbered=True))


def checked_format(wanted: str) -> str:
    """A letter of a format, or nothing; UsageError for any other."""
    if wanted and (len(wanted) > 1 or wanted not in f"{FORMATS}s"):
        letters = ", ".join(f"/{each}" for each in f"{FORMATS}s")
        raise UsageError(f"no such format: /{wanted}", f"{letters}; a count and a size are of x: x/8gx")
    return wanted


def values_of(
    debugger: Debugger, found: Evaluated, letter: str, program: Program, *, numbered: bool = False
) -> list[PrintedValue]:
    """The values of an expression that was evaluated.

    Args:
        debugger: whom it is asked of.
        found: what the expression means.
        letter: of the format, or empty.
        program: whose memory tells what the parts say.
        numbered: whether the history keeps them.
    """
    printing = _Printing(debugger, letter, found, program, numbered)
    return [printing.value(cpu, each) for cpu, each in found.values]


class _Printing:
    """One expression's values being read."""

    def __init__(self, debugger: Debugger, letter: str, whole: Evaluated, program: Program, numbered: bool) -> None:
        self._debugger = debugger
        self._numbered = numbered
        self._words = Words(program)
        self._letter = letter
        self._whole = whole

    def value(self, cpu: int | None, found: Object) -> PrintedValue:
        """One value; of several CPUs one may have its memory in the snapshot and another not."""
        if isinstance(found.plain_type_, FunctionType):
            found = found.address_of_()
        try:
            if self._letter == "s":
                return self._text(cpu, found)
            return self._read(cpu, found)
        except OrcdbgError as error:
            if len(self._whole.values) == 1:
                raise
            return PrintedValue(0, cpu, type_name(found.type_), found.address_, None, error=error)

    def _text(self, cpu: int | None, found: Object) -> PrintedValue:
        """The text that a pointer leads to, or that an array holds, whatever its type."""
        text = Scalar(ScalarKind.TEXT, found.string_())
        return PrintedValue(self._number(found), cpu, type_name(found.type_), found.address_, text)

    def _number(self, found: Object) -> int:
        return self._debugger.values.add(found) if self._numbered else 0

    def _read(self, cpu: int | None, found: Object) -> PrintedValue:
        value = found.value_()
        if isinstance(found.plain_type_, VoidType | IncompleteType):
            return PrintedValue(0, cpu, type_name(found.type_), found.address_, None)
        plain_numbers = bool(self._letter)
        parts = list(parts_of(found, value, self._whole.owner, self._whole.name, plain_numbers))
        return PrintedValue(
            self._number(found),
            cpu,
            type_name(found.type_),
            found.address_,
            value,
            isinstance(found.plain_type_, PointerType),
            _symbols(self._debugger, parts),
            {part.path: text for part in parts if (text := self._words.of(part)) is not None},
            {part.path: text for part in parts if (text := formatted(part, self._letter)) is not None},
            in_hexadecimal=self._debugger.in_hexadecimal,
            most=self._debugger.print_max,
        )


def _symbols(debugger: Debugger, parts: Sequence[Part]) -> dict[int, str]:
    """Names of the pointers that are addresses of the image or of modules."""
    pointers = {
        part.value.value for part in parts if isinstance(part.value, Scalar) and part.value.kind is ScalarKind.POINTER
    }
    return named_pointers(debugger.session, (pointer for pointer in pointers if isinstance(pointer, int)))
