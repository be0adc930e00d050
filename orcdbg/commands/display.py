"""display: expressions whose values are shown wherever stepping comes to stand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orcdbg.base.errors import NotFound, OrcdbgError, UsageError
from orcdbg.base.reasons import WhyNoValue
from orcdbg.commands.debugger import Debugger
from orcdbg.commands.printing import PrintedValue, checked_format, values_of
from orcdbg.commands.registry import Effect, command
from orcdbg.commands.regs import ALIASES
from orcdbg.commands.result import Result
from orcdbg.commands.scope import SelectedScope
from orcdbg.expressions.evaluation import evaluate
from orcdbg.expressions.scope import Scope
from orcdbg.typed.objects import Absent, InMemory, Object
from orcdbg.typed.types import VOID, FunctionType, pointer_to

if TYPE_CHECKING:
    from orcdbg.commands.emulation import Emulation

MAX_DISPLAYS = 100


@dataclass(frozen=True, slots=True)
class Display:
    """An expression that is shown again and again, under its number and in its format."""

    number: int
    format: str
    expression: str


@dataclass(frozen=True, slots=True)
class DisplayedValues:
    """What a display shows now: a value, or one for each CPU; none where `error` says why."""

    display: Display
    values: Sequence[PrintedValue] = ()
    error: OrcdbgError | None = None


@dataclass(frozen=True, slots=True)
class Displayed(Result):
    """Displays with their values."""

    displays: Sequence[DisplayedValues]


@dataclass(frozen=True, slots=True)
class Displays(Result):
    """The displays there are, without values."""

    displays: Sequence[Display]


class EmulatedScope(SelectedScope):
    """The names of where an emulated CPU stands: its registers, and memory as it wrote it."""

    def __init__(self, debugger: Debugger, emulation: Emulation) -> None:
        super().__init__(debugger)
        self._session = debugger.session
        self._emulation = emulation
        self.program = debugger.session.program.over(emulation.emulator.memory)

    def find_local(self, name: str) -> Object | None:
        """A local variable is not read there: what a reader of one needs of the walk is the snapshot's."""
        if not self._session.has_debug:
            return None
        trace = self._emulation.trace(1)
        found = self._session.local_variables.of(trace).find(0, name) if trace.frames else None
        if found is None:
            return None
        return Object(
            self.program,
            found.object.type_,
            Absent("local variables of emulated code are not read", WhyNoValue.NOT_KNOWN),
        )

    def register(self, name: str) -> Object:
        """A register of the emulated CPU."""
        registers = self._emulation.emulator.registers()
        wanted = ALIASES.get(name, name)
        if wanted not in registers:
            raise NotFound("register or value", f"${name}", " ".join(f"${each}" for each in registers))
        type_ = self.program.type("unsigned long")
        if wanted == "rip":
            type_ = pointer_to(FunctionType(lambda: VOID, lambda: (), False))
        elif wanted in ("rsp", "rbp"):
            type_ = pointer_to(VOID)
        return self.program.value(type_, registers[wanted])

    def recalled(self, word: str) -> Object:
        """An earlier value: of one in memory, what is there now."""
        found = super().recalled(word)
        if not isinstance(found.place_, InMemory):
            return found
        return Object(self.program, found.type_, found.place_, found.bit_size_)


def _shown(debugger: Debugger, display: Display) -> DisplayedValues:
    """What a display shows where stepping stands, else in the selected frame."""
    program = debugger.session.program
    scope: Scope = SelectedScope(debugger)
    emulation = debugger.selected_emulation
    if emulation is not None:
        scope = emulated = EmulatedScope(debugger, emulation)
        program = emulated.program
    found = evaluate(program, display.expression, scope)
    if found.is_type:
        raise UsageError(f"a type, not a value: {display.expression}", f"ptype {display.expression}")
    return DisplayedValues(display, values_of(debugger, found, display.format, program))


def displayed(debugger: Debugger) -> list[DisplayedValues]:
    """What all displays show now; what one cannot be read for it says, and the others are shown."""
    shown = []
    for display in debugger.displays.values():
        try:
            shown.append(_shown(debugger, display))
        except OrcdbgError as error:
            shown.append(DisplayedValues(display, error=error))
    return shown


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression", nargs="?", metavar="EXPRESSION", help="a C expression (default: show what is displayed now)"
    )


@command(
    "display",
    summary="show an expression's value wherever stepping comes to stand",
    group="stepping",
    effect=Effect.NONE,
    arguments=_arguments,
    operands=("symbol",),
    takes_expression=True,
    examples=(
        ("display/x $rax", "after each step; `undisplay 1` ends it"),
        ("display jiffies_64", "a variable, each time that a live guest stops"),
    ),
)
def display(debugger: Debugger, arguments: argparse.Namespace) -> Displayed:
    """Answers with the new display, which is shown from now on, or with all."""
    if arguments.expression is None:
        return Displayed(displayed(debugger))
    if len(debugger.displays) >= MAX_DISPLAYS:
        raise UsageError(f"there are {MAX_DISPLAYS} displays", "`undisplay` deletes them")
    new = Display(debugger.next_display, checked_format(arguments.format), arguments.expression)
    try:
        shown = _shown(debugger, new)
    except (NotFound, UsageError):
        raise  # it would be wrong each time
    except OrcdbgError as error:
        shown = DisplayedValues(new, error=error)
    debugger.displays[new.number] = new
    debugger.next_display += 1
    return Displayed([shown])
